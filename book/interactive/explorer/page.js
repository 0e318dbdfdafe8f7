/**
 * The results explorer: four choices, a forest plot of what they select, its rows, a link and a
 * CSV file. Without scripts, or where the rows cannot be read, the still table stays.
 */
(function (Medil) {
  "use strict";
  const { EVERY, load, conditionsOf, armsOf, complete, choose, rowsOf, asCsv, asLink, fromLink } = Medil.store;
  const { ends, strip, axis } = Medil.strip;
  const MOST_LINES = 40, MOST_ROWS = 200;

  /** An element with properties and children; text is text, never markup. */
  function make(name, properties = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(properties)) {
      if (key in made) made[key] = value;
      else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  }

  const words = (condition) => condition.replaceAll("->", "→");
  const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

  /** A number as it is stored, with a minus sign and with thousands apart. */
  function text(value) {
    if (value === null) return "–";
    const size = Math.abs(value), rounded = Number(size.toPrecision(4));
    const digits = size >= 1000 ? Math.round(size).toLocaleString("en") : String(rounded);
    return (value < 0 && rounded ? "−" : "") + digits;
  }

  function interval({ mean, low, high }) {
    return low === null ? [text(mean)] : [`${text(mean)} `, make("span", {}, `[${text(low)}, ${text(high)}]`)];
  }

  const headed = ([, title, unit]) => (unit ? `${title} (${unit})` : title);
  const nameOf = (cell, selection) =>
    selection.condition === EVERY ? `${cell.title}, ${words(cell.condition)}` : cell.title;

  // What a selection shows

  function forest(cells, selection, metric) {
    const range = ends(cells), scope = { scope: "col" };
    const lines = cells.map((cell) => make("tr", {},
      make("th", { scope: "row" }, nameOf(cell, selection)),
      make("td", { className: "strip" }, strip(cell, range, text)),
      make("td", {}, ...interval(cell)), make("td", {}, String(cell.n))));
    const head = make("tr", {}, make("th", scope, "Arm"), make("th", scope, "A dot a subject"),
      make("th", scope, "Mean [95 % interval]"), make("th", scope, "n"));
    const foot = make("tr", {}, make("td"), make("td", { className: "strip" }, axis(range, text)),
      make("td"), make("td"));
    const place = selection.condition === EVERY ? "every condition" : words(selection.condition);
    const better = { "↑": "higher is better", "↓": "lower is better" }[metric[3]];
    const caption = `${headed(metric)}, ${place}${better ? `; ${better}` : ""}`;
    return make("table", { className: "forest" }, make("caption", {}, caption),
      make("thead", {}, head), make("tbody", {}, ...lines), make("tfoot", {}, foot));
  }

  function rowTable(rows, metric) {
    const heads = ["Arm", "Condition", "Subject", "Seed", headed(metric), "Recorded", "Commit", "Device", "Weights"];
    const head = make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name)));
    const lines = rows.slice(0, MOST_ROWS).map(({ cell, value, subject, seed }) => {
      const texts = [cell.title, words(cell.condition), subject, seed, text(value), ...cell.origin];
      return make("tr", {}, ...texts.map((one) => make("td", {}, one || "none")));
    });
    const label = { tabIndex: 0, role: "region", "aria-label": "Rows of the selection", className: "scroll" };
    return make("div", label, make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  function sentence(cells, rows) {
    if (!cells.length) return "Nothing is chosen.";
    const cut = cells.length > MOST_LINES ? `; the first ${MOST_LINES} lines are drawn` : "";
    return `${counted(cells.length, "line")} from ${counted(rows.length, "row")}${cut}.`;
  }

  // Controls

  function select(id, label, entries, chosen, changed) {
    const input = make("select", { id: `medil-explorer-${id}` },
      ...entries.map(([value, shown]) => make("option", { value, selected: value === chosen }, shown)));
    input.addEventListener("change", () => changed(input.value));
    return make("div", { className: "choice" }, make("label", { htmlFor: input.id }, label), input);
  }

  function armBoxes(entries, chosen, changed) {
    const boxes = entries.map(([arm, title]) => {
      const input = make("input", { type: "checkbox", value: arm, checked: chosen.includes(arm) });
      return { input, label: make("label", {}, input, ` ${title}`) };
    });
    const tell = () => changed(boxes.filter(({ input }) => input.checked).map(({ input }) => input.value));
    const button = (name, checked) => {
      const made = make("button", { type: "button" }, name);
      made.addEventListener("click", () => {
        for (const { input } of boxes) input.checked = checked;
        tell();
      });
      return made;
    };
    for (const { input } of boxes) input.addEventListener("change", tell);
    return [button("All", true), button("None", false), ...boxes.map(({ label }) => label)];
  }

  // The explorer

  class Explorer {
    constructor(root) {
      this.folder = root.dataset.rows;
      this.experiments = JSON.parse(root.dataset.experiments);
      this.root = root;
      this.parts = {
        choices: make("div", { className: "choices" }),
        about: make("p"),
        arms: make("details", {}, make("summary"), make("fieldset")),
        status: make("p", { role: "status" }),
        plot: make("div"),
        take: make("p", { className: "take" }),
        rows: make("details", {}, make("summary"), make("div")),
      };
    }

    /** Show what is wanted, or what is nearest to it; the still table goes when that is ready. */
    async show(wanted) {
      const names = this.experiments.map(([name]) => name);
      const name = names.includes(wanted.experiment) ? wanted.experiment : names[0];
      this.wanted = wanted;
      const data = await load(this.folder, name);
      if (this.wanted !== wanted) return; // something else was chosen meanwhile
      this.data = data;
      if (!this.root.contains(this.parts.plot)) this.root.replaceChildren(...Object.values(this.parts));
      this.selection = complete(data, wanted);
      this.controls();
      this.draw();
    }

    /** Another choice; the address follows. */
    async choose(change) {
      const had = document.activeElement && document.activeElement.id;
      await this.show({ ...this.selection, ...change });
      if (had) document.getElementById(had)?.focus();
      history.replaceState(null, "", asLink(this.selection));
    }

    controls() {
      const { data, selection } = this, { metric, condition } = selection;
      const conditions = conditionsOf(data, metric).map((one) => [one, words(one)]);
      const every = [EVERY, `every condition (${conditions.length})`];
      this.parts.choices.replaceChildren(
        select("experiment", "Experiment", this.experiments, data.name, (experiment) => this.choose({ experiment, arms: null })),
        select("metric", "Metric", data.metrics.map((one) => [one[0], headed(one)]), metric, (one) => this.choose({ metric: one, arms: null })),
        select("condition", "Condition", [...conditions, every], condition, (one) => this.choose({ condition: one, arms: null })),
      );
      this.parts.about.textContent = `${data.question} ${data.metrics.find(([name]) => name === metric)[4]}`;
      const entries = armsOf(data, metric, condition), [, fieldset] = this.parts.arms.children;
      fieldset.replaceChildren(make("legend", {}, "Arms that are shown"), ...armBoxes(entries, selection.arms, (arms) => {
        this.selection.arms = arms;
        this.draw();
        history.replaceState(null, "", asLink(this.selection));
      }));
    }

    draw() {
      const { data, selection, parts } = this, cells = choose(data, selection), rows = rowsOf(cells);
      const metric = data.metrics.find(([name]) => name === selection.metric);
      const all = armsOf(data, selection.metric, selection.condition).length;
      parts.arms.firstChild.textContent = `Arms: ${selection.arms.length} of ${all}`;
      parts.status.textContent = sentence(cells, rows);
      parts.plot.replaceChildren(...(cells.length ? [forest(cells.slice(0, MOST_LINES), selection, metric)] : []));
      this.takeAway(cells);
      const [summary, body] = parts.rows.children, cut = rows.length > MOST_ROWS ? `, the first ${MOST_ROWS}` : "";
      summary.textContent = `The rows${cut}`;
      body.replaceChildren(make("p", {}, "Recorded with ", make("code", {}, data.command), "."), rowTable(rows, metric));
    }

    takeAway(cells) {
      if (this.address) URL.revokeObjectURL(this.address);
      this.address = URL.createObjectURL(new Blob([asCsv(this.data, cells)], { type: "text/csv" }));
      const { experiment, metric } = this.selection;
      this.parts.take.replaceChildren(
        make("a", { href: asLink(this.selection) }, "Link to this selection"),
        make("a", { href: this.address, download: `${experiment}-${metric}.csv` }, "Selection as CSV"),
      );
    }
  }

  function start(root) {
    const explorer = new Explorer(root), asked = fromLink(location.hash);
    const failed = () => root.append(make("p", {}, "The rows could not be read, so the table stays still."));
    Medil.explorer = explorer;
    explorer.ready = explorer.show(asked || {}).then(() => asked && root.scrollIntoView(), failed);
    addEventListener("hashchange", () => {
      const wanted = fromLink(location.hash);
      if (wanted) explorer.show(wanted).then(() => root.scrollIntoView());
    });
  }

  document.querySelectorAll(".medil-explorer").forEach(start);
})((globalThis.Medil = globalThis.Medil || {}));
