/**
 * Local functions on a feature grid, as in medil/layers/bases.py: a window times a few Fourier
 * modes, and the cubic B-spline. Each has its exact antiderivative, because a voxel is the mean
 * over its cell.
 *
 * @typedef {object} Basis
 * @property {number} radius The functions vanish from this distance on, in cells.
 * @property {number} count How many functions there are, J.
 * @property {number} pointsPerCell Gauss points an axis, where a mean has no closed form.
 * @property {(delta: number, out: Float64Array) => void} value J values at a distance in cells.
 * @property {(delta: number, out: Float64Array) => void} integral J antiderivatives.
 */
(function (Medil) {
  "use strict";

  /**
   * hat(d) * {1, sin pi d, cos pi d, ..., sin K pi d, cos K pi d}.
   * @param {number} harmonics K
   * @returns {Basis}
   */
  function localFourier(harmonics) {
    function value(delta, out) {
      const hat = Math.max(0, 1 - Math.abs(delta));
      out[0] = hat;
      for (let k = 1; k <= harmonics; k++) {
        out[2 * k - 1] = hat * Math.sin(k * Math.PI * delta);
        out[2 * k] = hat * Math.cos(k * Math.PI * delta);
      }
    }

    function integral(delta, out) {
      const d = Math.min(1, Math.max(-1, delta));
      const side = Math.sign(d), far = Math.abs(d);
      out[0] = d - (side * far * far) / 2;
      for (let k = 1; k <= harmonics; k++) {
        const omega = k * Math.PI;
        const sine = Math.sin(omega * far), cosine = Math.cos(omega * far);
        out[2 * k - 1] = (-(1 - far) * cosine) / omega - sine / omega ** 2;
        out[2 * k] = side * (((1 - far) * sine) / omega + (1 - cosine) / omega ** 2);
      }
    }

    return { radius: 1, count: 2 * harmonics + 1, pointsPerCell: 4, value, integral };
  }

  /** @type {Basis} */
  const cubicSpline = {
    radius: 2,
    count: 1,
    pointsPerCell: 2.5,
    value(delta, out) {
      const x = Math.abs(delta);
      const rest = Math.max(0, 2 - x);
      out[0] = x < 1 ? 2 / 3 - x * x * (1 - x / 2) : (rest * rest * rest) / 6;
    },
    integral(delta, out) {
      const far = Math.abs(delta);
      const near = far * (2 / 3 - far ** 2 / 3 + far ** 3 / 8);
      out[0] = Math.sign(delta) * (far < 1 ? near : 0.5 - Math.max(0, 2 - far) ** 4 / 24);
    },
  };

  Medil.bases = { localFourier, cubicSpline };
})((globalThis.Medil = globalThis.Medil || {}));
