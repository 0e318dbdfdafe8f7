/** Numbers as Python's format strings write them, halves to even. */
(function (Medil) {
  "use strict";

  /**
   * The decimal digits of a number above zero, rounded to `keep(exponent)` of them.
   * @returns {{digits: string, exponent: number}} d.ddd x 10^exponent
   */
  function rounded(number, keep) {
    const [mantissa, power] = number.toExponential(100).split("e"); // exact
    const all = mantissa.replace(".", ""), exponent = Number(power), n = keep(exponent);
    if (n < 0) return { digits: "", exponent };
    const kept = all.slice(0, n), rest = all.slice(n), half = "5".padEnd(rest.length, "0");
    const odd = Number(kept.slice(-1) || "0") % 2 === 1;
    if (rest < half || (rest === half && !odd)) return { digits: kept, exponent };
    const up = String(BigInt(kept || "0") + 1n).padStart(n, "0");
    return { digits: up, exponent: exponent + (up.length > n ? 1 : 0) };
  }

  /** `f"{number:.{decimals}f}"`, without minus zero. */
  function fixed(number, decimals = 2) {
    if (number === 0) return (0).toFixed(decimals);
    const { digits } = rounded(Math.abs(number), (exponent) => exponent + 1 + decimals);
    const text = (digits || "0").padStart(decimals + 1, "0");
    const whole = `${text.slice(0, -decimals)}.${text.slice(-decimals)}`;
    return (number < 0 && Number(whole) ? "-" : "") + whole;
  }

  /** `f"{number:.{precision}g}"` */
  function general(number, precision = 6) {
    if (number === 0) return Object.is(number, -0) ? "-0" : "0";
    if (!Number.isFinite(number)) return String(number).replace("NaN", "nan").replace("Infinity", "inf");
    const { digits, exponent } = rounded(Math.abs(number), () => precision);
    const shown = digits.slice(0, precision), sign = number < 0 ? "-" : "";
    if (exponent < -4 || exponent >= precision) {
      const size = String(Math.abs(exponent)).padStart(2, "0");
      return `${sign}${trimmed(`${shown[0]}.${shown.slice(1)}`)}e${exponent < 0 ? "-" : "+"}${size}`;
    }
    if (exponent < 0) return `${sign}${trimmed(`0.${"0".repeat(-exponent - 1)}${shown}`)}`;
    return `${sign}${trimmed(`${shown.slice(0, exponent + 1)}.${shown.slice(exponent + 1)}`)}`;
  }

  const trimmed = (text) => text.replace(/\.?0*$/, "");

  /** `f"{n:,}"` of a whole number. */
  const grouped = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");

  const times = (numbers) => numbers.map((n) => general(n, 5)).join(" x ");

  Medil.text = { fixed, general, grouped, times };
})((globalThis.Medil = globalThis.Medil || {}));
