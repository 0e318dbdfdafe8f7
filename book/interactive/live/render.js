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
  const PLACES = 2048; // in a cell: turned, points are rounded to them, by half a micrometre

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

  /**
   * Gauss points across each voxel, each of which looks up the nodes around it. Voxels whose
   * centre is beyond the block stay 0.
   */
  function turned(part, plane, matrix) {
    const n = plane.count, axes = directions(plane), out = new Float32Array(n * n);
    const size = plane.voxel / part.pitch, { offsets, weights } = gauss(part.basis, size);
    const [ax, az] = axes.across, [ux, uz] = axes.up, [width, , height] = part.shape;
    const look = lookup(part, matrix, Math.ceil(size) + 2 * part.basis.radius);
    for (let i = 0; i < n; i++) {
      for (let k = 0; k < n; k++) {
        const [x, z] = centre(plane, axes, i, k);
        const atX = toNodes(part, 0, x), atZ = toNodes(part, 2, z);
        if (atX < -0.6 || atX > width - 0.4 || atZ < -0.6 || atZ > height - 0.4) continue;
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

  /**
   * The basis functions of all nodes around a point, for every place of the point in its cell.
   * @returns {Float32Array} [PLACES + 1, 2 radius, J]
   */
  function tableOf({ radius, count, value }) {
    const steps = 2 * radius, table = new Float32Array((PLACES + 1) * steps * count);
    const values = new Float64Array(count);
    for (let place = 0; place <= PLACES; place++) {
      for (let step = 0; step < steps; step++) {
        value(place / PLACES + radius - 1 - step, values);
        table.set(values, (place * steps + step) * count);
      }
    }
    return table;
  }

  /** [X J, Z J] with the nodes at its edges repeated, `margin` of them at each end. */
  function padded(part, matrix, margin) {
    const J = part.basis.count, [width, , height] = part.shape;
    const wide = width + 2 * margin, high = height + 2 * margin;
    const out = new Float32Array(wide * J * high * J), inside = (n, size) => Math.min(size - 1, Math.max(0, n));
    for (let x = 0; x < wide; x++) {
      for (let z = 0; z < high; z++) {
        const fromX = inside(x - margin, width) * J, fromZ = inside(z - margin, height) * J;
        for (let j = 0; j < J; j++) {
          const from = (fromX + j) * height * J + fromZ;
          out.set(matrix.subarray(from, from + J), ((x * J + j) * high + z) * J);
        }
      }
    }
    return { values: out, columns: high * J };
  }

  /** A function that gives the value at a point, in nodes. Called most, it allocates nothing. */
  function lookup(part, matrix, margin) {
    const { radius, count: J } = part.basis, length = 2 * radius * J, table = tableOf(part.basis);
    const { values, columns } = padded(part, matrix, margin), first = margin - radius + 1;
    return function (atX, atZ) {
      const cellX = Math.floor(atX), cellZ = Math.floor(atZ);
      const inX = Math.round((atX - cellX) * PLACES) * length;
      const inZ = Math.round((atZ - cellZ) * PLACES) * length;
      let from = (cellX + first) * J * columns + (cellZ + first) * J, sum = 0;
      for (let m = 0; m < length; m++, from += columns) {
        let line = 0;
        for (let n = 0; n < length; n++) line += table[inZ + n] * values[from + n];
        sum += table[inX + m] * line;
      }
      return sum;
    };
  }

  Medil.render = { render, directions, centre };
})((globalThis.Medil = globalThis.Medil || {}));
