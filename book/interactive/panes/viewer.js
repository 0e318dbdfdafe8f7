/**
 * Panes of NiiVue over volumes of one box: one crosshair in mm, one intensity window.
 * Without a script, without WebGL2, or where a file is missing, the still picture stays.
 */
(function (Medil) {
  "use strict";
  const folder = document.currentScript.src.replace(/[^/]*$/, "");
  const AXES = [["R", "Right, R"], ["A", "Anterior, A"], ["S", "Superior, S"]];
  const PLANES = ["axial", "coronal", "sagittal", "all three"]; // in the order of NiiVue's types
  const SIDES = [["L", "R"], ["L", "R"], ["P", "A"], ["", ""]]; // left and right of each
  const OPTIONS = {
    backColor: [0, 0, 0, 1], crosshairColor: [0.34, 0.71, 0.91, 1], crosshairWidth: 0.5,
    crosshairGap: 3, dragAndDropEnabled: false, dragMode: 0, isNearestInterpolation: true,
    loadingText: "", logLevel: "error", multiplanarShowRender: 0,
  };
  const OURS = ["wheel", "keydown", "keyup", "dblclick", "contextmenu"]; // not NiiVue's: they scroll the page

  function element(name, properties, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  /** Scripts by name, each asked for once. */
  const asked = {};
  function load(name) {
    asked[name] ??= new Promise((done, failed) => {
      const script = element("script", { src: folder + name });
      script.onload = done;
      script.onerror = () => failed(new Error(`${name} cannot be read`));
      document.head.append(script);
    });
    return asked[name];
  }

  /** The voxel centre nearest to a place, inside the box. */
  function snapped({ first_mm, pitch_mm, shape }, mm) {
    return first_mm.map((first, axis) => {
      const index = Math.round((mm[axis] - first) / pitch_mm[axis]);
      return first + pitch_mm[axis] * Math.min(Math.max(index, 0), shape[axis] - 1);
    });
  }

  /** A canvas with its title; events that belong to the page do not reach NiiVue. */
  function cut(grid, { title }, label) {
    const canvas = element("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title}. ${label}`);
    const frame = element("div", { className: "medil-panes-cut" }, canvas);
    for (const kind of OURS) frame.addEventListener(kind, (event) => event.stopPropagation(), true);
    grid.append(element("div", {}, element("p", { textContent: title }), frame));
    return canvas;
  }

  async function pane(canvas, scene, one) {
    const fontColor = one.colours && !one.names ? [0, 0, 0, 1] : [0.9, 0.62, 0, 1];
    const view = new niivue.Niivue({ ...OPTIONS, fontColor });
    await view.attachToCanvas(canvas, false);
    canvas.tabIndex = -1; // sliders move the crosshair without a mouse
    const colormap = one.colours ? `medil ${one.title}` : "gray";
    if (one.colours) view.addColormap(colormap, one.colours);
    const [cal_min, cal_max] = one.window || scene.window;
    view.addVolume(await niivue.NVImage.loadFromBase64({
      base64: one.data, name: "volume.nii.gz", cal_min, cal_max, colormap,
    }));
    turn(view, 1);
    return view;
  }

  /** Another plane, with its sides named beside it; three planes at once name their own. */
  function turn(view, plane) {
    const [left, right] = SIDES[plane];
    Object.assign(view.canvas.parentElement.dataset, { left, right });
    view.opts.isOrientationTextVisible = !left;
    view.setSliceType(plane);
  }

  /** All panes go to one place in mm. */
  function move(viewer, mm) {
    viewer.mm = snapped(viewer.scene, mm);
    for (const view of viewer.views) {
      view.scene.crosshairPos = view.mm2frac(viewer.mm, 0, true);
      view.drawScene();
    }
    viewer.refresh();
  }

  function values({ views, mm }) {
    return views.map(({ volumes: [volume] }) => volume.getValue(...volume.mm2vox(mm)));
  }

  function sentence(viewer) {
    const place = AXES.map(([letter], axis) => `${letter} ${viewer.mm[axis].toFixed(0)}`).join(", ");
    const told = values(viewer).map((value, n) => {
      const { title, names } = viewer.scene.panes[n];
      return `${title} ${names?.length ? names[Math.round(value)] : value.toFixed(1)}`;
    });
    return `At ${place} mm: ${told.join("; ")} (${viewer.scene.unit}).`.replaceAll("-", "−");
  }

  function slider(controls, id, text, ends, value, unit, changed) {
    const input = element("input", { type: "range", id });
    Object.assign(input, ends).value = String(value);
    const shown = element("output");
    shown.htmlFor.add(id);
    const say = () => {
      shown.textContent = `${Number(input.value).toFixed(0)} ${unit}`.replace("-", "−");
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => {
      say();
      changed(Number(input.value));
    });
    say();
    controls.append(element("label", { htmlFor: id, textContent: text }), input, shown);
    return (now) => {
      input.value = String(now);
      say();
    };
  }

  /** Sliders for the place and the window, and a choice of the plane. */
  function controls(viewer, id) {
    const { scene, views } = viewer, made = element("div", { className: "medil-panes-controls" });
    const follow = AXES.map(([letter, text], axis) => {
      const first = scene.first_mm[axis], step = scene.pitch_mm[axis];
      const ends = { min: first, max: first + step * (scene.shape[axis] - 1), step };
      return slider(made, `${id}-${letter}`, text, ends, viewer.mm[axis], "mm", (mm) =>
        move(viewer, viewer.mm.map((old, other) => (other === axis ? mm : old))));
    });
    ["Black", "White"].forEach((text, end) => {
      const ends = { min: Math.min(0, scene.window[0]), max: scene.window[1] * 1.25, step: 1 };
      slider(made, `${id}-${text}`, text, ends, scene.window[end], "%", (value) => {
        viewer.window[end] = value;
        rewindow(viewer);
      });
    });
    const choice = element("select", { id: `${id}-plane` },
      ...PLANES.map((name, n) => element("option", { value: n, textContent: name, selected: n === 1 })));
    choice.addEventListener("change", () => views.forEach((view) => turn(view, Number(choice.value))));
    made.append(element("label", { htmlFor: choice.id, textContent: "Plane" }), choice);
    const status = element("p");
    status.setAttribute("role", "status");
    made.append(status);
    viewer.refresh = () => {
      follow.forEach((set, axis) => set(viewer.mm[axis]));
      status.textContent = sentence(viewer);
    };
    return made;
  }

  /** One window for all grey panes; white stays above black. */
  function rewindow({ scene, views, window: [black, white] }) {
    views.forEach((view, n) => {
      if (scene.panes[n].window) return;
      view.volumes[0].cal_min = black;
      view.volumes[0].cal_max = Math.max(white, black + 1);
      view.updateGLVolume();
    });
  }

  /** Put panes and controls in place of the still picture. */
  async function mount(figure, scene) {
    const grid = element("div", { className: "medil-panes-grid medil-panes-waiting" });
    const still = figure.querySelector("img"), id = `medil-panes-${scene.name}`;
    const canvases = scene.panes.map((one) => cut(grid, one, scene.label));
    still.after(grid);
    const views = [];
    for (const [n, one] of scene.panes.entries()) views.push(await pane(canvases[n], scene, one));
    const viewer = { scene, views, window: [...scene.window], mm: scene.point_mm, refresh() {}, values: () => values(viewer) };
    for (const view of views) {
      view.onLocationChange = ({ mm }) => move(viewer, [...mm].slice(0, 3));
    }
    grid.after(controls(viewer, id));
    still.remove();
    grid.classList.remove("medil-panes-waiting");
    move(viewer, scene.point_mm);
    viewer.move = (mm) => move(viewer, mm);
    Medil.panes.viewers.push(viewer);
  }

  const hasWebgl = () => Boolean(document.createElement("canvas").getContext("webgl2"));

  async function start(figure) {
    const note = figure.querySelector(".medil-panes-note"), { volumes } = figure.dataset;
    figure.setAttribute("aria-busy", "true");
    try {
      if (!hasWebgl()) throw new Error("this browser has no WebGL2");
      await Promise.all([load("niivue.js"), load(`${volumes}.js`)]);
      await mount(figure, Medil.volumes[volumes]);
    } catch (error) {
      figure.querySelector(".medil-panes-grid")?.remove();
      note.textContent = `The picture stays still: ${error.message}.`;
      note.hidden = false;
    }
    figure.removeAttribute("aria-busy");
  }

  Medil.panes = { viewers: [] };
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      start(target);
    }
  }, { rootMargin: "300px" });
  document.querySelectorAll(".medil-panes").forEach((figure) => near.observe(figure));
})((globalThis.Medil = globalThis.Medil || {}));
