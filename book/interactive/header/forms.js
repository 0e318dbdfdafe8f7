/**
 * The two places that a NIfTI header can name, and signs that a place is half a voxel off, in the
 * words of medil/io/forms.py.
 */
(function (Medil) {
  "use strict";
  const { corners, spacing, toIndex, toRas, determinant } = Medil.grid;
  const { fixed, general, times } = Medil.text;
  const NEAR_VOX = 0.02, SAME_SIZE = 0.01;
  const CORNER = "as if a corner of a voxel had been taken for its centre";

  /** The largest distance between the same corner of two grids of one shape, in mm. */
  function apart(one, other) {
    const there = corners(other);
    return Math.max(...corners(one).map((here, n) => Math.hypot(...here.map((mm, a) => mm - there[n][a]))));
  }

  const mirrored = (one, other) => determinant(one.affine) * determinant(other.affine) < 0;

  /** What a header says against the grid that is used. */
  function contradictions(header) {
    const { grid, qform, codes, sizes } = header;
    if (codes.sform && qform) {
      if (mirrored(grid, qform)) {
        return ["qform and sform differ in what is left and right: the sform is used."];
      }
      const mm = apart(grid, qform);
      if (codes.sform === codes.qform && mm > Math.max(...spacing(grid))) {
        return [`qform and sform name one space and lie ${general(mm, 3)} mm apart: the sform is used.`];
      }
    }
    if (codes.sform && !codes.qform) {
      const used = spacing(grid);
      if (used.some((size, n) => Math.abs(size - sizes[n]) > SAME_SIZE * size)) {
        return [
          `the header names voxels of ${times(sizes)} mm (pixdim), its sform ${times(used)} mm, which is used.`,
        ];
      }
    }
    return [];
  }

  function describeForms({ qform, sform, codes }) {
    const names = ["qform", "sform"].filter((name) => codes[name]);
    const grids = { qform, sform };
    if (!names.length) return "neither qform nor sform";
    const unusable = names.filter((name) => !grids[name]);
    if (unusable.length) return `the ${unusable.join(" and the ")} cannot be used`;
    if (names.length === 1) return `the ${names[0]} alone`;
    const text = `qform and sform lie ${fixed(apart(sform, qform), 3)} mm apart at most`;
    return text + (mirrored(sform, qform) ? ", and differ in what is left and right" : "");
  }

  /** The axes along which an offset is half a voxel; empty where one is neither that nor 0. */
  function halfAxes(offset) {
    const half = offset.map((vox) => Math.abs(Math.abs(vox) - 0.5) <= NEAR_VOX);
    const near = offset.map((vox) => Math.abs(vox) <= NEAR_VOX);
    if (!offset.every((_, n) => half[n] || near[n])) return "";
    return [..."ijk"].filter((_, n) => half[n]).join(", ");
  }

  function alike(one, other) {
    const most = SAME_SIZE * Math.min(...spacing(one));
    return [0, 1, 2].every((r) => [0, 1, 2].every((c) => Math.abs(one.affine[r][c] - other.affine[r][c]) <= most));
  }

  function halfVoxel({ grid, qform, codes }) {
    const signs = [];
    if (codes && codes.sform && qform && alike(grid, qform)) {
      const axes = halfAxes(toIndex(grid, toRas(qform, [0, 0, 0])));
      if (axes) signs.push(`qform and sform lie half a voxel apart along ${axes}`);
    }
    const middle = grid.shape.map((n) => (n - 1) / 2);
    const axes = halfAxes(toIndex(grid, [0, 0, 0]).map((index, n) => index - middle[n]));
    if (axes) signs.push(`the world's origin lies half a voxel from the middle of the box along ${axes}`);
    return signs.length ? `${signs.join("; ")}, ${CORNER}` : "no sign";
  }

  Medil.forms = { contradictions, describeForms, halfVoxel };
})((globalThis.Medil = globalThis.Medil || {}));
