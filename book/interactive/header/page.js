/**
 * A file that is chosen or dropped: its first bytes are read, its header is described. Nothing
 * leaves the page.
 */
(function (Medil) {
  "use strict";
  const HEADER_BYTES = 1024;
  const FORMATS = {
    ".nii.gz": Medil.nifti, ".nii": Medil.nifti, ".mgz": Medil.mgh, ".mgh": Medil.mgh,
  };

  /** The first bytes of a file, inflated if they are those of a gzip file. */
  async function firstBytes(file) {
    const start = new Uint8Array(await file.slice(0, 2).arrayBuffer());
    if (!(start[0] === 0x1f && start[1] === 0x8b)) return file.slice(0, HEADER_BYTES).arrayBuffer();
    const reader = file.stream().pipeThrough(new DecompressionStream("gzip")).getReader();
    const bytes = new Uint8Array(HEADER_BYTES);
    let n = 0;
    while (n < HEADER_BYTES) {
      const { value, done } = await reader.read();
      if (done) break;
      bytes.set(value.subarray(0, HEADER_BYTES - n), n);
      n = Math.min(HEADER_BYTES, n + value.length);
    }
    reader.cancel().catch(() => {});
    return bytes.buffer.slice(0, n);
  }

  /**
   * @param {File} file
   * @returns {Promise<{facts: [string, string][], error: string}>}
   */
  async function describe(file) {
    const name = file.name.toLowerCase(), suffix = Object.keys(FORMATS).find((end) => name.endsWith(end));
    if (!suffix) return { facts: [], error: `choose a file that ends in ${Object.keys(FORMATS).join(", ")}.` };
    try {
      const view = new DataView(await firstBytes(file));
      return { facts: Medil.facts.describe(FORMATS[suffix].read(view, suffix)), error: "" };
    } catch (error) {
      const isOurs = error instanceof Medil.grid.InputError;
      return { facts: [], error: isOurs ? error.message : `this is not a whole, readable ${suffix} image.` };
    }
  }

  /** Write the facts as rows of a table; text of the file is text here, never markup. */
  function show(root, file, { facts, error }) {
    const body = root.querySelector("tbody"), status = root.querySelector("[role=status]");
    body.replaceChildren(...facts.map(([name, text]) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      head.scope = "row";
      head.textContent = name;
      row.append(head, Object.assign(document.createElement("td"), { textContent: text }));
      return row;
    }));
    root.querySelector("table").hidden = !facts.length;
    const notes = facts.filter(([name]) => name === "note").length;
    const said = notes ? `${notes} ${notes > 1 ? "notes" : "note"} at the end.` : "No notes.";
    status.textContent = error ? `${file.name}: ${error}` : `${file.name}: ${said}`;
  }

  function start(root) {
    const input = root.querySelector("input");
    const take = async (file) => {
      if (!file) return;
      const told = await describe(file);
      show(root, file, told);
      Medil.header.last = { name: file.name, ...told };
    };
    input.disabled = false;
    input.addEventListener("change", () => take(input.files[0]));
    for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
      root.addEventListener(kind, (event) => {
        event.preventDefault();
        root.classList.toggle("is-over", kind === "dragenter" || kind === "dragover");
      });
    }
    root.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
  }

  Medil.header = { describe, last: null };
  document.querySelectorAll(".medil-header").forEach(start);
})((globalThis.Medil = globalThis.Medil || {}));
