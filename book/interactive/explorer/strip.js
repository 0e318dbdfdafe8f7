/** One line of a forest plot: a dot for each subject, the mean, and its interval on a shared axis. */
(function (Medil) {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_TICKS = 4, MARGIN = 0.06;

  function shape(name, attributes, title) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (title) made.append(Object.assign(document.createElementNS(SVG, "title"), { textContent: title }));
    return made;
  }

  /** The mean over seeds of each subject. */
  function dots({ subjects, seeds, values, title }) {
    return subjects.map((subject, s) => {
      const own = values.slice(s * seeds.length, (s + 1) * seeds.length).filter((v) => v !== null);
      return { subject, title, value: own.reduce((sum, v) => sum + v, 0) / own.length };
    });
  }

  /** The ends that hold every dot and interval, with a margin. */
  function ends(cells) {
    const held = cells.flatMap((cell) =>
      [cell.mean, cell.low, cell.high, ...dots(cell).map(({ value }) => value)].filter((v) => v !== null));
    const low = Math.min(...held), high = Math.max(...held);
    const margin = MARGIN * (high - low) || Math.abs(high) / 10 || 1;
    return [low - margin, high + margin];
  }

  /** Round numbers between two ends. */
  function ticks([low, high]) {
    const rough = (high - low) / MOST_TICKS, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
    const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
    return Array.from({ length: count }, (_, n) => Number(((first + n) * step).toPrecision(12)));
  }

  function canvas(height, [low, high]) {
    const svg = shape("svg", { width: "100%", height, "aria-hidden": "true" });
    return { svg, at: (value) => `${(100 * (value - low)) / (high - low)}%` };
  }

  function strip(cell, range, text) {
    const { svg, at } = canvas(28, range);
    for (const value of ticks(range)) {
      const kind = value === 0 ? "zero" : "grid";
      svg.append(shape("line", { class: kind, x1: at(value), x2: at(value), y1: 0, y2: "100%" }));
    }
    for (const { subject, value } of dots(cell)) {
      svg.append(shape("circle", { class: "dot", cx: at(value), cy: 14, r: 3.5 }, `${subject}: ${text(value)}`));
    }
    if (cell.low !== null) {
      svg.append(shape("line", { class: "interval", x1: at(cell.low), x2: at(cell.high), y1: 14, y2: 14 }));
    }
    if (cell.mean !== null) {
      svg.append(shape("line", { class: "mean", x1: at(cell.mean), x2: at(cell.mean), y1: 5, y2: 23 }));
    }
    return svg;
  }

  function axis(range, text) {
    const { svg, at } = canvas(18, range);
    for (const value of ticks(range)) {
      const label = shape("text", { x: at(value), y: 13, "text-anchor": "middle" });
      label.textContent = text(value);
      svg.append(label);
    }
    return svg;
  }

  Medil.strip = { dots, ends, ticks, strip, axis };
})((globalThis.Medil = globalThis.Medil || {}));
