/**
 * Shape and affine of an image, in mm and RAS+, as `Grid` in medil/grid.py.
 *
 * @typedef {object} Grid
 * @property {number[]} shape Voxels along i, j, k.
 * @property {number[][]} affine [4][4] index to mm.
 */
(function (Medil) {
  "use strict";
  const LEAST_MM = 1e-7, MOST_MM = 1e9, ROUNDING = 2e-6;
  const AXES = [0, 1, 2];

  /** A sentence for people: the file cannot be described. */
  class InputError extends Error {}

  const column = (matrix, c) => AXES.map((r) => matrix[r][c]);
  const dot = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);
  const length = (vector) => Math.sqrt(dot(vector, vector));

  function determinant(m) {
    return m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
      - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
      + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
  }

  /** The inverse of the upper left [3][3]. */
  function inverse(m) {
    const scale = determinant(m);
    return AXES.map((r) => AXES.map((c) => {
      const [a, b] = AXES.filter((n) => n !== c), [d, e] = AXES.filter((n) => n !== r);
      const minor = m[a][d] * m[b][e] - m[a][e] * m[b][d];
      return ((r + c) % 2 ? -minor : minor) / scale;
    }));
  }

  const spacing = (grid) => AXES.map((c) => length(column(grid.affine, c)));
  const extent = (grid) => spacing(grid).map((size, n) => size * grid.shape[n]);

  /** [3][3], the unit vectors of the voxel axes, one a column. */
  function directions(grid) {
    const sizes = spacing(grid);
    return AXES.map((r) => AXES.map((c) => grid.affine[r][c] / sizes[c]));
  }

  const toRas = (grid, index) => AXES.map((r) => dot(grid.affine[r].slice(0, 3), index) + grid.affine[r][3]);
  const toIndex = (grid, mm) => {
    const offset = mm.map((value, r) => value - grid.affine[r][3]);
    return inverse(grid.affine).map((row) => dot(row, offset));
  };

  /** The eight corners of the box (outer faces), in mm. */
  function corners(grid) {
    return Array.from({ length: 8 }, (_, n) => {
      const index = grid.shape.map((size, axis) => ((n >> (2 - axis)) & 1 ? size - 0.5 : -0.5));
      return toRas(grid, index);
    });
  }

  /**
   * Which world axis each voxel axis is nearest to, and whether it runs along it, as nibabel
   * decides it: on the nearest rotation, the clearest axis first.
   * @returns {{axis: number, sign: number}[]}
   */
  function orientation(grid) {
    let rotation = directions(grid);
    for (let step = 0; step < 50; step++) { // Newton's iteration for the polar decomposition
      const other = inverse(rotation);
      rotation = AXES.map((r) => AXES.map((c) => (rotation[r][c] + other[c][r]) / 2));
    }
    const clearest = (c) => Math.max(...column(rotation, c).map((value) => value ** 2));
    const order = AXES.map((c) => [c, clearest(c)]).sort((a, b) => b[1] - a[1]);
    const found = [];
    for (const [c] of order) {
      const sizes = column(rotation, c).map(Math.abs), axis = sizes.indexOf(Math.max(...sizes));
      found[c] = { axis, sign: rotation[axis][c] < 0 ? -1 : 1 };
      rotation[axis] = [0, 0, 0];
    }
    return found;
  }

  const codes = (grid) => orientation(grid).map(({ axis, sign }) => (sign > 0 ? "RAS" : "LPI")[axis]).join("");

  /** Angles between the voxel axes and the world axes they are named after, in degrees. */
  function tilt(grid) {
    const all = directions(grid);
    return orientation(grid).map(({ axis }, c) => {
      const aside = Math.hypot(...AXES.filter((r) => r !== axis).map((r) => all[r][c]));
      return (Math.atan2(aside, Math.abs(all[axis][c])) * 180) / Math.PI;
    });
  }

  /** Shape of the smallest grid of a voxel size over the box, in the order R, A, S. */
  function covering(grid, spacingMm) {
    const lengths = extent(grid), shape = [];
    orientation(grid).forEach(({ axis }, c) => {
      const n = lengths[c] / spacingMm;
      shape[axis] = Math.max(1, Math.ceil(n - Math.max(1e-6, ROUNDING * n)));
    });
    return shape;
  }

  /** A grid, if its affine can be used. */
  function make(shape, affine) {
    const numbers = affine.flat(), sizes = spacing({ shape, affine });
    if (!numbers.every(Number.isFinite)) {
      throw new InputError("the affine holds NaN or Inf; repair the header before using this image.");
    }
    if (AXES.every((r) => AXES.every((c) => affine[r][c] === 0))) {
      throw new InputError("the affine is zero; repair the header before using this image.");
    }
    const unit = AXES.map((r) => AXES.map((c) => affine[r][c] / sizes[c]));
    if (sizes.includes(0) || Math.abs(determinant(unit)) < 1e-6) {
      throw new InputError("the affine is singular (two voxel axes coincide); repair the header.");
    }
    if (Math.min(...sizes) < LEAST_MM || Math.max(...sizes) > MOST_MM) {
      const text = sizes.map((size) => Medil.text.general(size, 4)).join(" x ");
      throw new InputError(`the affine has voxels of ${text} mm; repair the header.`);
    }
    const away = Math.max(...AXES.map((r) => Math.abs(affine[r][3])));
    if (away > MOST_MM) {
      const text = Medil.text.general(away, 4);
      throw new InputError(`the affine puts the image ${text} mm away, too far; repair the header.`);
    }
    return { shape, affine };
  }

  Medil.grid = {
    InputError, make, spacing, extent, corners, codes, tilt, covering, toRas, toIndex, determinant,
  };
})((globalThis.Medil = globalThis.Medil || {}));
