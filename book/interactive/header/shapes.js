/** Sizes of the axes of a file, and what is refused about them, as in medil/io/source.py. */
(function (Medil) {
  "use strict";
  const { InputError } = Medil.grid;

  /**
   * @param {number[]} dim How many axes there are, then their sizes, as NIfTI stores them.
   * @returns {number[]} The sizes of all axes.
   */
  function spatial(dim) {
    const all = dim.slice(1, dim[0] + 1), sizes = all.map((n, axis) => (axis < 3 ? n : n || 1));
    const text = sizes.join(" x ");
    if (sizes.length < 3) {
      throw new InputError(`the image is ${sizes.length}-D (${text}); medil needs a 3-D volume.`);
    }
    if (Math.min(...sizes) < 1) {
      const least = Math.min(...sizes);
      throw new InputError(`the image has an axis of size ${least} (${text}); there is nothing to read.`);
    }
    if (sizes.slice(3).filter((n) => n > 1).length > 1) {
      throw new InputError(`the image is ${sizes.length}-D (${text}); medil reads 3-D and 4-D images.`);
    }
    return sizes;
  }

  Medil.shapes = { spatial };
})((globalThis.Medil = globalThis.Medil || {}));
