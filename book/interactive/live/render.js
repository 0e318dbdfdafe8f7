/**
 * One plane of voxels from coefficients on a grid of nodes, as `synthesise` in
 * medil/layers/projection.py renders it. Along the grid it is the closed form, three banded
 * products; turned in its own plane it is the quadrature that Python takes for oblique grids.
 *
 * Lengths are mm from the middle of the block. Axes are x (right), y (anterior), z (superior).
 *
 * @typedef {object} Part
 * @property {Basis} basis
 * @property {Float32Array} planes [Y, J, X, J, Z, J] coefficients
 * @property {number[]} shape [X, Y, Z] nodes
 * @property {number} pitch mm between nodes
 *
 * @typedef {object} Plane A square of cubic voxels, seen from the front.
 * @property {number} count Voxels an edge.
 * @property {number} voxel mm
 * @property {number[]} middle [x, y, z] mm
 * @property {number} tilt Angle in its own plane, in degrees, as `Grid.rotated((0, 1, 0), tilt)`.
 */
(function (Medil) {
  "use strict";
  const { meanRow, pointsRow, gauss } = Medil.rows;

  /** Directions of the voxel rows and columns of a plane, as [x, z]. */
  function directions(plane) {
    const angle = (plane.tilt * Math.PI) / 180;
    return { across: [Math.cos(angle), -Math.sin(angle)], up: [Math.sin(angle), Math.cos(angle)] };
  }

  /** The centre of voxel (i, k) of a plane, as [x, z] in mm. */
  function centre(plane, { across, up }, i, k) {
    const a = (i - (plane.count - 1) / 2) * plane.voxel;
    const b = (k - (plane.count - 1) / 2) * plane.voxel;
    const [x, , z] = plane.middle;
    return [x + a * across[0] + b * up[0], z + a * across[1] + b * up[1]];
  }

  /** mm to the index of a node of one axis. */
  const toNodes = (part, axis, mm) => mm / part.pitch + (part.shape[axis] - 1) / 2;

  /**
   * The axis through the plane summed up: what is left is a matrix [X J, Z J].
   * @returns {Float32Array}
   */
  function through(part, plane) {
    const [width, depth, height] = part.shape, J = part.basis.count;
    const at = toNodes(part, 1, plane.middle[1]), size = plane.voxel / part.pitch;
    const row = plane.tilt
      ? pointsRow(part.basis, depth, at, gauss(part.basis, size))
      : meanRow(part.basis, depth, at, size);
    const length = width * J * height * J, sum = new Float32Array(length);
    row.weights.forEach((weight, n) => {
      const from = (row.first * J + n) * length;
      for (let m = 0; m < length; m++) sum[m] += weight * part.planes[from + m];
    });
    return sum;
  }

  /**
   * A plane of one part.
   * @param {Part} part
   * @param {Plane} plane
   * @returns {Float32Array} [count, count], by x and then by z
   */
  function render(part, plane) {
    const matrix = through(part, plane);
    return plane.tilt ? turned(part, plane, matrix) : straight(part, plane, matrix);
  }

  /** Two banded products: rows of voxels, then columns. */
  function straight(part, plane, matrix) {
    const n = plane.count, J = part.basis.count, columns = part.shape[2] * J;
    const rowsOf = (axis) => Array.from({ length: n }, (_, i) => {
      const mm = plane.middle[axis] + (i - (n - 1) / 2) * plane.voxel;
      const at = toNodes(part, axis, mm), width = plane.voxel / part.pitch;
      return meanRow(part.basis, part.shape[axis], at, width);
    });
    const alongX = rowsOf(0), alongZ = rowsOf(2);
    const out = new Float32Array(n * n), line = new Float32Array(columns);
    for (let i = 0; i < n; i++) {
      line.fill(0);
      alongX[i].weights.forEach((weight, m) => {
        const from = (alongX[i].first * J + m) * columns;
        for (let c = 0; c < columns; c++) line[c] += weight * matrix[from + c];
      });
      for (let k = 0; k < n; k++) {
        const { first, weights } = alongZ[k];
        let sum = 0;
        for (let m = 0; m < weights.length; m++) sum += weights[m] * line[first * J + m];
        out[i * n + k] = sum;
      }
    }
    return out;
  }

  /** Gauss points across each voxel, each of which looks up the nodes around it. */
  function turned(part, plane, matrix) {
    const n = plane.count, axes = directions(plane), out = new Float32Array(n * n);
    const { offsets, weights } = gauss(part.basis, plane.voxel / part.pitch);
    const [ax, az] = axes.across, [ux, uz] = axes.up, look = lookup(part, matrix);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) {
        const [x, z] = centre(plane, axes, i, k);
        const atX = toNodes(part, 0, x), atZ = toNodes(part, 2, z);
        let sum = 0;
        for (let p = 0; p < offsets.length; p++) {
          for (let q = 0; q < offsets.length; q++) {
            const a = offsets[p], b = offsets[q];
            sum += weights[p] * weights[q] * look(atX + a * ax + b * ux, atZ + a * az + b * uz);
          }
        }
        out[i * n + k] = sum;
      }
    }
    return out;
  }

  /** A function that gives the value at a point, in nodes. Called most, it allocates nothing. */
  function lookup(part, matrix) {
    const { radius, count: J, value } = part.basis, steps = 2 * radius;
    const [width, , height] = part.shape, columns = height * J;
    const inX = Array.from({ length: steps }, () => new Float64Array(J));
    const inZ = Array.from({ length: steps }, () => new Float64Array(J));
    return function (atX, atZ) {
      const firstX = Math.floor(atX) - (radius - 1), firstZ = Math.floor(atZ) - (radius - 1);
      for (let s = 0; s < steps; s++) {
        value(atX - firstX - s, inX[s]);
        value(atZ - firstZ - s, inZ[s]);
      }
      let sum = 0;
      for (let s = 0; s < steps; s++) {
        const row = Math.min(width - 1, Math.max(0, firstX + s)) * J, wX = inX[s];
        for (let t = 0; t < steps; t++) {
          const column = Math.min(height - 1, Math.max(0, firstZ + t)) * J, wZ = inZ[t];
          for (let j = 0; j < J; j++) {
            const from = (row + j) * columns + column;
            let line = 0;
            for (let l = 0; l < J; l++) line += wZ[l] * matrix[from + l];
            sum += wX[j] * line;
          }
        }
      }
      return sum;
    };
  }

  Medil.render = { render, directions, centre };
})((globalThis.Medil = globalThis.Medil || {}));
