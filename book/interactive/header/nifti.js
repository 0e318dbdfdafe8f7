/**
 * The header of a NIfTI file, read and mended as medil/io/nifti.py does.
 *
 * @typedef {object} Header
 * @property {string} kind nifti1, nifti2 or mgh
 * @property {number[]} sizes Voxel sizes that the header names beside its forms, in mm.
 * @property {number[]} dims Sizes of all axes of the file.
 * @property {Grid} grid
 * @property {?Grid} qform Null where its code is 0 or it cannot be used; so is `sform`.
 * @property {?Grid} sform
 * @property {?{qform: number, sform: number}} codes Null in MGH, which has none.
 * @property {string[]} units Of space and of time.
 * @property {string} dtype Of the stored numbers, as NumPy names it.
 * @property {number} slope value = stored * slope + inter
 * @property {number} inter
 * @property {string[]} notes What was assumed.
 */
(function (Medil) {
  "use strict";
  const { InputError, make } = Medil.grid;
  const { general } = Medil.text;
  const ALIGNED = 2, KNOWN_CODES = 5;
  const SPACE = { 0: ["unknown", 1], 1: ["meter", 1000], 2: ["mm", 1], 3: ["micron", 1e-3] };
  const TIME = { 0: "unknown", 8: "sec", 16: "msec", 24: "usec", 32: "hz", 40: "ppm", 48: "rads" };
  const TYPES = {
    2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64", 256: "int8", 512: "uint16",
    768: "uint32", 1024: "int64", 1280: "uint64", 1536: "float64",
  };
  const COLOURS = [128, 2304], COMPLEX = [32, 1792, 2048];
  const EPSILON = { nifti1: 2 ** -23, nifti2: 2 ** -52 };

  /** Where the fields are: [offset, kind] in NIfTI-1 and in NIfTI-2. */
  const FIELDS = {
    nifti1: {
      dim: [40, "int16"], datatype: [70, "int16"], pixdim: [76, "float32"], slope: [112, "float32"],
      inter: [116, "float32"], units: [123, "uint8"], qform: [252, "int16"], sform: [254, "int16"],
      quaternion: [256, "float32"], offset: [268, "float32"], rows: [280, "float32"], magic: 344,
    },
    nifti2: {
      dim: [16, "int64"], datatype: [12, "int16"], pixdim: [104, "float64"], slope: [176, "float64"],
      inter: [184, "float64"], units: [500, "int32"], qform: [344, "int32"], sform: [348, "int32"],
      quaternion: [352, "float64"], offset: [376, "float64"], rows: [400, "float64"], magic: 4,
    },
  };
  const READERS = {
    uint8: [1, (view, at) => view.getUint8(at)],
    int16: [2, (view, at, little) => view.getInt16(at, little)],
    int32: [4, (view, at, little) => view.getInt32(at, little)],
    int64: [8, (view, at, little) => Number(view.getBigInt64(at, little))],
    float32: [4, (view, at, little) => view.getFloat32(at, little)],
    float64: [8, (view, at, little) => view.getFloat64(at, little)],
  };

  /** NIfTI-1 or 2, and the byte order; null for other bytes. */
  function kindOf(view) {
    for (const little of [true, false]) {
      if (view.byteLength >= 348 && view.getInt32(0, little) === 348) return ["nifti1", little];
      if (view.byteLength >= 540 && view.getInt32(0, little) === 540) return ["nifti2", little];
    }
    return null;
  }

  /**
   * @param {DataView} view The first bytes of a file.
   * @param {string} suffix Of its name, for the sentence about other files.
   * @returns {Header}
   */
  function read(view, suffix) {
    const found = kindOf(view);
    if (!found) {
      throw new InputError(`this is not a whole, readable ${suffix} image (it has no NIfTI header).`);
    }
    const [kind, little] = found, fields = FIELDS[kind];
    const get = (name, count = 1) => {
      const [at, type] = fields[name], [size, value] = READERS[type];
      return Array.from({ length: count }, (_, n) => value(view, at + n * size, little));
    };
    if (view.getUint8(fields.magic + 1) === 0x69) { // "ni1" and "ni2": a pair of files
      throw new InputError("the voxels are in another file (.img); write both as one .nii first.");
    }
    const notes = [], raw = get("pixdim", 4);
    const codes = { qform: get("qform")[0], sform: get("sform")[0] };
    for (const name of ["qform", "sform"]) {
      if (codes[name] >= 0 && codes[name] <= KNOWN_CODES) continue;
      if (codes[name] > 0) notes.push(`the ${name}_code ${codes[name]} is unknown: ${ALIGNED} is assumed.`);
      codes[name] = codes[name] > 0 ? ALIGNED : 0;
    }
    const quaternion = shortened(get("quaternion", 3), codes, EPSILON[kind], notes);
    if (!codes.qform && !codes.sform) {
      notes.push("the header has no qform and no sform: position and handedness are assumed.");
    }
    if (!codes.sform && raw.slice(1).includes(0)) {
      notes.push("the header holds a voxel size of 0: 1 is assumed.");
    }
    const dims = Medil.shapes.spatial(get("dim", 8)), [units, scale] = unitsOf(get("units")[0]);
    if (units[0] === "unknown" && get("units")[0] % 8) {
      notes.push("the header names no known unit of length: mm is assumed.");
    }
    const pixdim = raw.slice(1).map((size) => Math.abs(size) || 1), qfac = raw[0] === -1 ? -1 : 1;
    const shape = dims.slice(0, 3), inMm = (rows) => scaled(rows, scale);
    const qRows = qformRows(quaternion, get("offset", 3), pixdim, qfac, EPSILON[kind]);
    const sRows = [0, 1, 2].map((n) => get("rows", 12).slice(4 * n, 4 * n + 4));
    const header = {
      kind, dims, codes, units, notes, dtype: dtypeOf(get("datatype")[0]),
      sizes: pixdim.map((size) => size * scale),
      qform: codes.qform ? usable(shape, inMm(qRows)) : null,
      sform: codes.sform ? usable(shape, inMm(sRows)) : null,
    };
    const rows = codes.sform ? sRows : codes.qform ? qRows : centredRows(shape, pixdim);
    place(header, shape, inMm(rows));
    [header.slope, header.inter] = scaling(get("slope")[0], get("inter")[0], notes);
    return header;
  }

  /** Choose the grid: the sform, or the qform where the sform cannot be used. */
  function place(header, shape, affine) {
    try {
      header.grid = make(shape, affine);
    } catch (error) {
      if (!(header.codes.sform && header.qform)) throw error;
      header.grid = header.qform;
      header.notes.push("the sform cannot be used: the qform is used instead.");
      return;
    }
    header.notes.push(...Medil.forms.contradictions(header));
  }

  function shortened(quaternion, codes, epsilon, notes) {
    const length = Math.hypot(...quaternion);
    if (!codes.qform || !(length > 1) || length === Infinity) return quaternion;
    if (length > 1 + 1e-5) {
      notes.push(`the qform's quaternion has length ${general(length)}: 1 is assumed.`);
    }
    return quaternion.map((value) => (value * (1 - epsilon)) / length);
  }

  /** [3][4] of a unit quaternion, offsets and voxel sizes. */
  function qformRows([x, y, z], offset, sizes, qfac, epsilon) {
    const rest = 1 - (x * x + y * y + z * z);
    const w = Math.abs(rest) < 3 * epsilon ? 0 : Math.sqrt(rest);
    const s = 2 / (w * w + x * x + y * y + z * z);
    const rotation = [
      [1 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
      [s * (x * y + w * z), 1 - s * (x * x + z * z), s * (y * z - w * x)],
      [s * (x * z - w * y), s * (y * z + w * x), 1 - s * (x * x + y * y)],
    ];
    const steps = [sizes[0], sizes[1], sizes[2] * qfac];
    return rotation.map((row, r) => [...row.map((value, c) => value * steps[c]), offset[r]]);
  }

  /** Where there is no form: x to the left, the world's origin in the middle. */
  function centredRows(shape, sizes) {
    const steps = [-sizes[0], sizes[1], sizes[2]];
    return steps.map((step, r) => {
      const row = [0, 0, 0, (-(shape[r] - 1) / 2) * step];
      row[r] = step;
      return row;
    });
  }

  const scaled = (rows, scale) => [...rows.map((row) => row.map((value) => value * scale)), [0, 0, 0, 1]];

  function usable(shape, affine) {
    try {
      return make(shape, affine);
    } catch {
      return null;
    }
  }

  function unitsOf(code) {
    const space = SPACE[code % 8], time = TIME[code - (code % 8)];
    return space && time ? [[space[0], time], space[1]] : [["unknown", "unknown"], 1];
  }

  function dtypeOf(code) {
    if (COLOURS.includes(code)) {
      throw new InputError("the image holds colours (RGB); medil reads one number per voxel.");
    }
    if (COMPLEX.includes(code)) {
      throw new InputError("the image is complex; save its magnitude as an image of its own.");
    }
    if (!TYPES[code]) throw new InputError(`the header names the data type ${code}, which is unknown.`);
    return TYPES[code];
  }

  function scaling(slope, inter, notes) {
    if (slope === 0 || !Number.isFinite(slope)) return [1, 0];
    if (Number.isFinite(inter)) return [slope, inter];
    notes.push("the intercept of the header is not finite: 0 is assumed.");
    return [slope, 0];
  }

  Medil.nifti = { read };
})((globalThis.Medil = globalThis.Medil || {}));
