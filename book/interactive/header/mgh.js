/** The header of an MGH file, as medil/io/nifti.py reads it. */
(function (Medil) {
  "use strict";
  const { InputError, make } = Medil.grid;
  const TYPES = { 0: "uint8", 1: "int32", 3: "float32", 4: "int16" };
  const CORONAL = [-1, 0, 0, 0, 0, -1, 0, 1, 0]; // as FreeSurfer assumes

  /**
   * @param {DataView} view The first bytes of a file.
   * @param {string} suffix Of its name, for the sentence about short files.
   * @returns {Header}
   */
  function read(view, suffix) {
    if (view.byteLength < 90) {
      throw new InputError(`this is not a whole, readable ${suffix} image (it ends in its header).`);
    }
    const floats = (at, count) => Array.from({ length: count }, (_, n) => view.getFloat32(at + 4 * n));
    const type = view.getInt32(20), notes = [];
    if (!TYPES[type]) {
      throw new InputError(`the header names the data type ${type}, which MGH does not have.`);
    }
    const counts = [0, 1, 2, 3].map((n) => view.getInt32(4 + 4 * n));
    let sizes = floats(30, 3), cosines = floats(42, 9), middle = floats(78, 3);
    if (view.getInt16(28) <= 0) {
      [sizes, cosines, middle] = [[1, 1, 1], CORONAL, [0, 0, 0]];
      notes.push("the header names no orientation: coronal slices of 1 mm are assumed.");
    }
    if (sizes.some((size) => size < 0)) {
      const text = sizes.map((size) => Medil.text.general(size)).join(" x ");
      throw new InputError(`the header holds voxels of ${text} mm; repair it first.`);
    }
    const dims = Medil.shapes.spatial([counts[3] === 1 ? 3 : 4, ...counts]), shape = dims.slice(0, 3);
    const affine = [0, 1, 2].map((r) => {
      const steps = sizes.map((size, c) => Math.fround(cosines[3 * c + r] * size));
      const half = steps.reduce((sum, step, c) => sum + step * shape[c], 0) / 2;
      return [...steps, middle[r] - half];
    });
    return {
      kind: "mgh", dims, sizes, codes: null, qform: null, sform: null, units: ["mm", "unknown"],
      dtype: TYPES[type], slope: 1, inter: 0, notes, grid: make(shape, [...affine, [0, 0, 0, 1]]),
    };
  }

  Medil.mgh = { read };
})((globalThis.Medil = globalThis.Medil || {}));
