/**
 * The recorded rows of an experiment, as `eval.pages.explorer` wrote them, and selections of them.
 * A selection names an experiment, a metric, a condition (or all of them) and arms.
 */
(function (Medil) {
  "use strict";
  const EVERY = "*"; // all conditions
  const MOST_ARMS = 12; // that are chosen at first
  const ANCHOR = "#explorer";
  const loaded = new Map();

  async function inflate(text) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  /** Cells with names in place of numbers. */
  function named(data) {
    const cells = data.cells.map(([metric, condition, arm, place, origin, n, mean, low, high, values]) => {
      const [subjects, seeds] = data.places[place];
      return {
        metric: data.metrics[metric][0], condition: data.conditions[condition], arm: data.arms[arm][0],
        title: data.arms[arm][1], subjects: subjects.map((subject) => data.subjects[subject]), seeds,
        origin: data.origins[origin], n, mean, low, high, values,
      };
    });
    return { ...data, cells };
  }

  /** The rows of an experiment, asked for once. */
  function load(folder, name) {
    if (!loaded.has(name)) {
      loaded.set(name, new Promise((done, failed) => {
        const script = Object.assign(document.createElement("script"), { src: `${folder}/${name}.js` });
        script.onload = () => inflate(Medil.results[name]).then((data) => done(named(data)), failed);
        script.onerror = () => failed(new Error(`${name}.js cannot be read`));
        document.head.append(script);
      }));
    }
    return loaded.get(name);
  }

  /** Conditions and arms that have cells, in the order of the rows. */
  const conditionsOf = (data, metric) => {
    const found = new Set(data.cells.filter((c) => c.metric === metric).map((c) => c.condition));
    return data.conditions.filter((condition) => found.has(condition));
  };
  const armsOf = (data, metric, condition) => {
    const here = (c) => c.metric === metric && (condition === EVERY || c.condition === condition);
    const found = new Set(data.cells.filter(here).map((c) => c.arm));
    return data.arms.filter(([arm]) => found.has(arm));
  };

  /** The selection that is nearest to what is wanted; what is not wanted gets its first value. */
  function complete(data, wanted = {}) {
    const known = data.metrics.some(([name]) => name === wanted.metric);
    const metric = known ? wanted.metric : data.metrics[0][0];
    const conditions = conditionsOf(data, metric), of = armsOf(data, metric, EVERY).length;
    const first = of < 3 && conditions.length > 1 ? EVERY : conditions[0];
    const isThere = wanted.condition === EVERY || conditions.includes(wanted.condition);
    const condition = isThere ? wanted.condition : first;
    const names = armsOf(data, metric, condition).map(([arm]) => arm);
    const kept = wanted.arms ? names.filter((name) => wanted.arms.includes(name)) : [];
    const none = wanted.arms && wanted.arms.length === 0;
    return { experiment: data.name, metric, condition, arms: kept.length || none ? kept : names.slice(0, MOST_ARMS) };
  }

  /** Chosen cells: by condition, then the better mean first where the metric has a better side. */
  function choose(data, { metric, condition, arms }) {
    const side = { "↑": -1, "↓": 1 }[data.metrics.find(([name]) => name === metric)[3]] || 0;
    const order = new Map(data.conditions.map((name, n) => [name, n]));
    const isChosen = (c) =>
      c.metric === metric && arms.includes(c.arm) && (condition === EVERY || c.condition === condition);
    return data.cells.filter(isChosen).sort((one, other) =>
      order.get(one.condition) - order.get(other.condition) || side * (one.mean - other.mean));
  }

  /** One entry a row: a number of one subject and seed. */
  const rowsOf = (cells) => cells.flatMap((cell) =>
    cell.values.map((value, k) => ({
      cell, value, subject: cell.subjects[Math.floor(k / cell.seeds.length)], seed: cell.seeds[k % cell.seeds.length],
    })).filter(({ value }) => value !== null));

  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

  function asCsv(data, cells) {
    const units = Object.fromEntries(data.metrics.map(([name, , unit]) => [name, unit]));
    const head = "experiment,metric,unit,condition,arm,subject,seed,value,recorded,commit,device,weights";
    const lines = rowsOf(cells).map(({ cell, value, subject, seed }) =>
      [data.name, cell.metric, units[cell.metric], cell.condition, cell.arm, subject, seed, value, ...cell.origin]
        .map(quoted).join(","));
    return `${[head, ...lines].join("\n")}\n`;
  }

  /** The address of a selection within a page. */
  function asLink({ experiment, metric, condition, arms }) {
    const query = new URLSearchParams({ experiment, metric, condition });
    for (const arm of arms) query.append("arm", arm);
    return `${ANCHOR}?${query}`;
  }

  /** What an address names; null where it is about something else. */
  function fromLink(hash) {
    if (!hash.startsWith(`${ANCHOR}?`)) return null;
    const query = new URLSearchParams(hash.slice(ANCHOR.length + 1)), wanted = {};
    for (const name of ["experiment", "metric", "condition"]) {
      if (query.has(name)) wanted[name] = query.get(name);
    }
    return query.has("arm") ? { ...wanted, arms: query.getAll("arm") } : wanted;
  }

  Medil.store = { EVERY, load, conditionsOf, armsOf, complete, choose, rowsOf, asCsv, asLink, fromLink };
})((globalThis.Medil = globalThis.Medil || {}));
