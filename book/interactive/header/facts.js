/** The lines of `medil info` that a header alone gives: `describe_file` in medil/cli/describe.py. */
(function (Medil) {
  "use strict";
  const { spacing, extent, corners, codes, tilt, covering } = Medil.grid;
  const { fixed, general, grouped, times } = Medil.text;
  const LATENT_MM = 4, CHANNELS = 8;
  const LEAST_MM = 0.1, MOST_MM = 12;

  function bounds(grid) {
    const all = corners(grid);
    return [..."RAS"].map((name, axis) => {
      const mm = all.map((corner) => corner[axis]);
      return `${name} ${fixed(Math.min(...mm))} to ${fixed(Math.max(...mm))}`;
    }).join(", ");
  }

  function latent(grid) {
    const shape = covering(grid, LATENT_MM), product = (numbers) => numbers.reduce((a, b) => a * b, 1);
    const kept = product(shape) * CHANNELS, share = general(kept / product(grid.shape), 3);
    return `${CHANNELS} x ${times(shape)} at ${LATENT_MM} mm: ${grouped(kept)} numbers, ${share} a voxel`;
  }

  function oddSizes(sizes) {
    if (Math.min(...sizes) >= LEAST_MM && Math.max(...sizes) <= MOST_MM) return [];
    const text = sizes.map((size) => general(size, 4)).join(" x ");
    return [`voxels of ${text} mm are not those of a scan of a head; is the unit right?`];
  }

  /**
   * @param {Header} header
   * @returns {[string, string][]} Name and text of each fact.
   */
  function describe(header) {
    const { grid } = header, sizes = spacing(grid);
    const volumes = header.dims.slice(3).reduce((a, b) => a * b, 1);
    const isScaled = header.slope !== 1 || header.inter !== 0;
    const meaning = `, value = stored * ${general(header.slope)} + ${general(header.inter)}`;
    const notes = [...header.notes, ...oddSizes(sizes)];
    return [
      ["shape", times(grid.shape)],
      ...(volumes > 1 ? [["volumes", `${volumes}, one of which is described`]] : []),
      ["orientation", codes(grid)],
      ["tilt_deg", tilt(grid).map((angle) => fixed(angle)).join(", ")],
      ["spacing_mm", times(sizes)],
      ["extent_mm", times(extent(grid))],
      ["bounds_mm", bounds(grid)],
      ...(header.codes ? [
        ["codes", `qform ${header.codes.qform}, sform ${header.codes.sform}`],
        ["forms", Medil.forms.describeForms(header)],
      ] : []),
      ["half_voxel", Medil.forms.halfVoxel(header)],
      ["units", `space ${header.units[0]}, time ${header.units[1]}`],
      ["dtype", `${header.dtype} (${header.kind})${isScaled ? meaning : ""}`],
      ["latent", latent(grid)],
      ...notes.map((note) => ["note", note]),
    ];
  }

  Medil.facts = { describe };
})((globalThis.Medil = globalThis.Medil || {}));
