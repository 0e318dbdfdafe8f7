/**
 * Coefficients of the cubic spline whose averages over voxels are given, as `least_squares` in
 * medil/layers/projection.py finds them: along each axis (M'M + e I)^-1 M', with a tiny e.
 */
(function (Medil) {
  "use strict";
  const { meanRow } = Medil.rows;
  const RIDGE = 1e-4; // of the median diagonal

  /** [n, n] averages of n splines over n voxels. */
  function averages(basis, n) {
    const matrix = Array.from({ length: n }, () => new Float64Array(n));
    for (let v = 0; v < n; v++) {
      const row = meanRow(basis, n, v, 1);
      row.weights.forEach((weight, m) => (matrix[v][row.first + m] = weight));
    }
    return matrix;
  }

  /** Solve a symmetric positive system for several right sides, in place (Cholesky). */
  function solve(system, sides) {
    const n = system.length;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let sum = system[i][j];
        for (let k = 0; k < j; k++) sum -= system[i][k] * system[j][k];
        system[i][j] = i === j ? Math.sqrt(sum) : sum / system[j][j];
      }
    }
    for (const side of sides) {
      for (let i = 0; i < n; i++) {
        for (let k = 0; k < i; k++) side[i] -= system[i][k] * side[k];
        side[i] /= system[i][i];
      }
      for (let i = n - 1; i >= 0; i--) {
        for (let k = i + 1; k < n; k++) side[i] -= system[k][i] * side[k];
        side[i] /= system[i][i];
      }
    }
  }

  /** [n][n]: column v holds the coefficients of a voxel v of 1 among zeros. */
  function inverse(basis, n) {
    const matrix = averages(basis, n);
    const dot = (a, b) => matrix.reduce((sum, row) => sum + row[a] * row[b], 0);
    const gram = Array.from({ length: n }, (_, a) => Float64Array.from({ length: n }, (_, b) => dot(a, b)));
    const diagonal = gram.map((row, a) => row[a]).sort((a, b) => a - b);
    const median = (diagonal[(n - 1) >> 1] + diagonal[n >> 1]) / 2;
    gram.forEach((row, a) => (row[a] += RIDGE * median));
    const sides = matrix.map((row) => row.slice());
    solve(gram, sides);
    return sides; // [voxel][node]
  }

  /**
   * A part whose coefficients are voxels, to one whose coefficients are those of the spline.
   * @param {Part} part With one function.
   * @returns {Part}
   */
  Medil.throughVoxels = function (part) {
    const [width, depth, height] = part.shape;
    const lines = [ // of the axes of [Y, X, Z]: size, step, and the first number of each line
      { size: depth, step: width * height },
      { size: width, step: height },
      { size: height, step: 1 },
    ];
    let values = part.planes;
    for (const { size, step } of lines) {
      const columns = inverse(part.basis, size), out = new Float32Array(values.length);
      for (let first = 0; first < values.length; first++) {
        if (Math.floor(first / step) % size) continue;
        for (let v = 0; v < size; v++) {
          const value = values[first + v * step];
          for (let n = 0; n < size; n++) out[first + n * step] += value * columns[v][n];
        }
      }
      values = out;
    }
    return { ...part, planes: values };
  };
})((globalThis.Medil = globalThis.Medil || {}));
