/**
 * The live picture: sliders set a plane, and every frame is rendered anew from the block.
 * Without a script, or in a browser that cannot inflate the block, the still picture stays.
 */
(function (Medil) {
  "use strict";
  const { unpack, decode, truth, inside } = Medil.scene;
  const FIELD_MM = 80, SIDE_PX = 480, MOST_ERROR = 0.15;
  const RED = [178, 24, 43], BLUE = [33, 102, 172], WHITE = [247, 247, 247];
  const SLIDERS = [
    { name: "voxel", label: "Voxel size", unit: "mm", min: 0.4, max: 5, step: 0.1, value: 1.5 },
    { name: "slice", label: "Slice", unit: "mm", min: -8, max: 8, step: 0.5, value: 0 },
    { name: "tilt", label: "Turn of the voxels", unit: "°", min: -15, max: 15, step: 1, value: 0 },
  ];
  const BOXES = [
    { name: "shifted", label: "Header off by half a voxel" },
    { name: "error", label: "Error: rendering minus scan" },
  ];
  const folder = document.currentScript.src.replace(/[^/]*$/, "");

  /** @returns {Plane} */
  function planeOf({ voxel, slice, tilt }) {
    const count = Math.max(1, Math.round(FIELD_MM / voxel));
    return { count, voxel, middle: [0, slice, 0], tilt };
  }

  /** The plane where a header that is off by half a voxel, right and up, says that it lies. */
  function claimed(plane) {
    const { across, up } = Medil.render.directions(plane), half = plane.voxel / 2;
    const [x, y, z] = plane.middle;
    const middle = [x + half * (across[0] + up[0]), y, z + half * (across[1] + up[1])];
    return { ...plane, middle };
  }

  /** What is shown: values, the error where both are known, and its root mean square. */
  function compute(scene, state) {
    const plane = planeOf(state), values = decode(scene, plane);
    if (!state.error) return { plane, values, error: null, rms: null };
    const there = state.shifted ? claimed(plane) : plane;
    const scan = truth(scene, there), here = inside(scene, plane), known = inside(scene, there);
    let sum = 0, n = 0;
    const error = values.map((value, v) => {
      if (!here[v] || !known[v]) return NaN;
      const difference = value - scan[v];
      sum += difference ** 2;
      n += 1;
      return difference;
    });
    return { plane, values, error, rms: Math.sqrt(sum / n) };
  }

  /** Colours write three numbers of 0 to 255 into an image; the image clamps them. */
  const grey = ([low, high]) => (value, data, at) => {
    data[at] = data[at + 1] = data[at + 2] = (255 * (value - low)) / (high - low);
  };

  function signed(value, data, at) {
    const known = !Number.isNaN(value), end = value > 0 ? RED : BLUE;
    const share = Math.min(1, Math.abs(value) / MOST_ERROR);
    for (let c = 0; c < 3; c++) data[at + c] = known ? WHITE[c] + share * (end[c] - WHITE[c]) : 128;
  }

  /** Voxels as an image of one pixel each, superior up. */
  function asImage(values, count, colour) {
    const image = new ImageData(count, count);
    for (let i = 0; i < count; i++) {
      for (let k = 0; k < count; k++) {
        const at = 4 * ((count - 1 - k) * count + i);
        colour(values[i * count + k], image.data, at);
        image.data[at + 3] = 255;
      }
    }
    return image;
  }

  /** Draw the voxels where the header says that they lie. */
  function draw(canvas, buffer, { plane, values, error }, state, window) {
    buffer.width = buffer.height = plane.count;
    const image = asImage(error || values, plane.count, error ? signed : grey(window));
    buffer.getContext("2d").putImageData(image, 0, 0);
    const context = canvas.getContext("2d"), scale = SIDE_PX / FIELD_MM;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = error ? "#808080" : "#000";
    context.fillRect(0, 0, SIDE_PX, SIDE_PX);
    context.setTransform(scale, 0, 0, scale, SIDE_PX / 2, SIDE_PX / 2);
    context.rotate((plane.tilt * Math.PI) / 180);
    if (state.shifted) context.translate(plane.voxel / 2, -plane.voxel / 2);
    const side = plane.count * plane.voxel;
    context.imageSmoothingEnabled = false;
    context.drawImage(buffer, -side / 2, -side / 2, side, side);
  }

  function sentence({ plane, rms }) {
    const size = `${plane.count} × ${plane.count} voxels of ${plane.voxel.toFixed(1)} mm`;
    if (rms === null) return `${size}.`;
    return `${size}. Root mean square error: ${(100 * rms).toFixed(1)} % of the scan's range.`;
  }

  function slider(id, { name, label, unit, ...limits }, state, changed) {
    const input = Object.assign(document.createElement("input"), { type: "range", id: `${id}-${name}` });
    const { value, ...ends } = limits;
    Object.assign(input, ends).value = String(value);
    const text = document.createElement("label"), shown = document.createElement("output");
    text.htmlFor = input.id;
    shown.htmlFor.add(input.id);
    const say = () => {
      const digits = name === "tilt" ? 0 : 1;
      shown.textContent = `${Number(input.value).toFixed(digits)} ${unit}`.replace(" °", "°");
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    text.append(label);
    input.addEventListener("input", () => {
      state[name] = Number(input.value);
      say();
      changed();
    });
    state[name] = value;
    say();
    return [text, shown, input];
  }

  function box(id, { name, label }, state, changed) {
    const input = Object.assign(document.createElement("input"), { type: "checkbox", id: `${id}-${name}` });
    const text = document.createElement("label");
    text.append(input, ` ${label}`);
    input.addEventListener("change", () => {
      state[name] = input.checked;
      changed();
    });
    state[name] = false;
    return text;
  }

  /** Put canvas and controls in place of the still picture. */
  function mount(figure, scene) {
    const id = `medil-live-${Medil.live.viewers.length}`, state = {};
    const canvas = Object.assign(document.createElement("canvas"), { width: SIDE_PX, height: SIDE_PX });
    const buffer = document.createElement("canvas"), status = document.createElement("p");
    const viewer = { scene, state, canvas, shown: null, refresh };
    let waiting = false;
    function refresh() {
      viewer.shown = compute(scene, state);
      draw(canvas, buffer, viewer.shown, state, scene.window);
      status.textContent = sentence(viewer.shown);
    }
    const changed = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        refresh();
      });
    };
    const controls = Object.assign(document.createElement("div"), { className: "medil-live-controls" });
    for (const one of SLIDERS) controls.append(...slider(id, one, state, changed));
    for (const one of BOXES) controls.append(box(id, one, state, changed));
    status.setAttribute("role", "status");
    controls.append(status);
    const still = figure.querySelector("img");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", figure.dataset.label);
    still.replaceWith(canvas);
    canvas.after(controls);
    refresh();
    Medil.live.viewers.push(viewer);
  }

  /** The numbers of block.js, asked for once. */
  let block = null;
  function load() {
    block ??= new Promise((done, failed) => {
      const script = Object.assign(document.createElement("script"), { src: `${folder}block.js` });
      script.onload = () => unpack(Medil.block).then(done, failed);
      script.onerror = () => failed(new Error("block.js cannot be read"));
      document.head.append(script);
    });
    return block;
  }

  function start(figure) {
    const note = figure.querySelector(".medil-live-note");
    load().then(
      (scene) => mount(figure, scene),
      () => (note.hidden = false),
    );
  }

  Medil.live = { viewers: [], compute, planeOf };
  const figures = document.querySelectorAll(".medil-live");
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      start(target);
    }
  }, { rootMargin: "300px" });
  figures.forEach((figure) => near.observe(figure));
})((globalThis.Medil = globalThis.Medil || {}));
