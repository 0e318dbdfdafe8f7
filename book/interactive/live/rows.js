/**
 * What a voxel takes from the nodes of one axis, as in medil/layers/projection.py: the mean of
 * each basis function over the voxel, in closed form or by Gauss quadrature. Beyond the first and
 * the last node, edge coefficients are repeated.
 *
 * @typedef {object} Row
 * @property {number} first The first node that counts.
 * @property {number} size How many nodes count.
 * @property {Float64Array} weights [size, J]
 */
(function (Medil) {
  "use strict";

  const clamp = (n, nodes) => Math.min(nodes - 1, Math.max(0, n));

  /**
   * A row of zeros for the nodes `low` ... `high`, cut to those there are.
   * @returns {Row}
   */
  function blank(basis, nodes, low, high) {
    const first = clamp(low, nodes), size = clamp(high, nodes) - first + 1;
    return { first, size, weights: new Float64Array(size * basis.count) };
  }

  /** Add `scale` times some values to the weights of a node, or of the edge node. */
  function add(row, nodes, node, values, scale) {
    const at = (clamp(node, nodes) - row.first) * values.length;
    for (let j = 0; j < values.length; j++) row.weights[at + j] += scale * values[j];
  }

  /**
   * The closed form: the mean over a voxel, whose centre and width are in cells.
   * @returns {Row}
   */
  function meanRow(basis, nodes, centre, width) {
    const reach = Math.ceil(basis.radius + width / 2), nearest = Math.round(centre);
    const upper = new Float64Array(basis.count), lower = new Float64Array(basis.count);
    const row = blank(basis, nodes, nearest - reach, nearest + reach);
    for (let node = nearest - reach; node <= nearest + reach; node++) {
      basis.integral(centre - node + width / 2, upper);
      basis.integral(centre - node - width / 2, lower);
      add(row, nodes, node, upper, 1 / width);
      add(row, nodes, node, lower, -1 / width);
    }
    return row;
  }

  /**
   * The mean by Gauss quadrature; a single point of weight 1 gives the value there.
   * @param {{offsets: number[], weights: number[]}} points Offsets in cells.
   * @returns {Row}
   */
  function pointsRow(basis, nodes, centre, points) {
    const ends = points.offsets.map((offset) => Math.floor(centre + offset));
    const low = Math.min(...ends) - (basis.radius - 1), high = Math.max(...ends) + basis.radius;
    const row = blank(basis, nodes, low, high), values = new Float64Array(basis.count);
    points.offsets.forEach((offset, p) => {
      const first = Math.floor(centre + offset) - (basis.radius - 1);
      for (let node = first; node < first + 2 * basis.radius; node++) {
        basis.value(centre + offset - node, values);
        add(row, nodes, node, values, points.weights[p]);
      }
    });
    return row;
  }

  /**
   * Gauss points across a voxel, as many as Python takes.
   * @param {number} width Of the voxel, in cells.
   */
  function gauss(basis, width) {
    const count = Math.max(2, Math.ceil(Math.round(basis.pointsPerCell * width * 1e6) / 1e6));
    const offsets = [], weights = [];
    for (let i = 0; i < count; i++) {
      const [x, slope] = legendreRoot(count, i);
      offsets.push((x * width) / 2);
      weights.push(1 / ((1 - x * x) * slope * slope));
    }
    return { offsets, weights };
  }

  /** A root of the Legendre polynomial of a degree, and the slope there (Newton's method). */
  function legendreRoot(degree, index) {
    let x = Math.cos((Math.PI * (index + 0.75)) / (degree + 0.5)), slope = 1;
    for (let step = 0; step < 8; step++) {
      let before = 1, here = x;
      for (let n = 2; n <= degree; n++) {
        [before, here] = [here, ((2 * n - 1) * x * here - (n - 1) * before) / n];
      }
      slope = (degree * (x * here - before)) / (x * x - 1);
      x -= here / slope;
    }
    return [x, slope];
  }

  Medil.rows = { meanRow, pointsRow, gauss };
})((globalThis.Medil = globalThis.Medil || {}));
