/**
 * The block of block.js, unpacked: what the network decoded, the closed form's splines, and the
 * scan's own voxels. `decode` and `truth` are `MedIL.decode` and `resample_cubic` of one plane.
 *
 * @typedef {object} Scene
 * @property {Part} learned Amplitudes of the integrated LTE.
 * @property {Part} splines Coefficients of the closed form, from the latent.
 * @property {Part} scan Coefficients of the cubic spline through the scan's voxels.
 * @property {number[]} half [x, y, z] half the lengths of the block, in mm.
 * @property {number} middle The intensity that the splines' zero stands for.
 * @property {number[]} window Black and white, on the scale of the model, 0 to 1.
 */
(function (Medil) {
  "use strict";
  const { localFourier, cubicSpline } = Medil.bases;
  const { render, directions, centre } = Medil.render;
  const TYPES = { int8: Int8Array, int16: Int16Array, uint8: Uint8Array };

  /** Bytes of a gzip file in base64. */
  async function inflate(text) {
    const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  /**
   * Stored numbers [F, X, Y, Z], F = J^3 functions in the order x, y, z, to planes of a part.
   * @returns {Promise<Float32Array>} [Y, J, X, J, Z, J]
   */
  async function planes(stored, J) {
    const numbers = new TYPES[stored.type](await inflate(stored.data));
    const [, width, depth, height] = stored.shape;
    const out = new Float32Array(numbers.length);
    let from = 0;
    for (let f = 0; f < J ** 3; f++) {
      const jx = Math.floor(f / J ** 2), jy = Math.floor(f / J) % J, jz = f % J;
      for (let x = 0; x < width; x++) {
        for (let y = 0; y < depth; y++) {
          let at = (((y * J + jy) * width + x) * J + jx) * height * J + jz;
          for (let z = 0; z < height; z++, at += J) out[at] = numbers[from++] * stored.steps[f];
        }
      }
    }
    return out;
  }

  /** @returns {Promise<Part>} */
  async function part(stored, basis) {
    const shape = stored.shape.slice(1);
    return { basis, shape, pitch: stored.pitch_mm, planes: await planes(stored, basis.count) };
  }

  /**
   * @param {object} block What block.js holds.
   * @returns {Promise<Scene>}
   */
  async function unpack(block) {
    const [learned, splines, voxels] = await Promise.all([
      part(block.learned, localFourier(block.harmonics)),
      part(block.splines, cubicSpline),
      part(block.scan, cubicSpline),
    ]);
    const half = splines.shape.map((n) => (n * splines.pitch) / 2);
    const { middle, window } = block;
    return { learned, splines, scan: Medil.throughVoxels(voxels), half, middle, window };
  }

  /** Whether the centre of each voxel of a plane lies in the block, as Python decides it. */
  function inside(scene, plane) {
    const n = plane.count, axes = directions(plane), out = new Uint8Array(n * n);
    const within = (mm, axis) => Math.abs(mm) <= scene.half[axis] + 1e-6;
    if (!within(plane.middle[1], 1)) return out;
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) {
        const [x, z] = centre(plane, axes, i, k);
        out[i * n + k] = Number(within(x, 0) && within(z, 2));
      }
    }
    return out;
  }

  /**
   * The model on a plane, on its scale of 0 to 1; 0 beyond the block, where nothing is known.
   * @returns {Float32Array} [count, count], by x and then by z
   */
  function decode(scene, plane) {
    const learned = render(scene.learned, plane), splines = render(scene.splines, plane);
    const known = inside(scene, plane);
    return learned.map((value, n) => (known[n] ? value + splines[n] + scene.middle : 0));
  }

  /** The scan on a plane: cubic splines through its voxels, averaged over those of the plane. */
  function truth(scene, plane) {
    return render(scene.scan, plane);
  }

  Medil.scene = { unpack, decode, truth, inside };
})((globalThis.Medil = globalThis.Medil || {}));
