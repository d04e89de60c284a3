// The viewer: a slice of one case with the truth, and the same beside it with a cell's prediction.
const WINDOWS = { abdomen: [-160, 240], liver: [-45, 105], lung: [-1350, 150], bone: [-500, 1300] }; // HU
const AIR = -1000; // nothing is below it
const OFFERED = 0.75; // share of a window's values that a scan must reach, as it is stored clipped
const WHEEL = 40; // pixels that make a step
const FILL = 0.5, STRONG = 0.8; // opacities
const view = {
  at: [0, 0, 0], // slices across the three axes
  zoom: 1,
  centre: [0.5, 0.5], // shares of the plane, from its upper left corner
  size: [1, 1], // of the plane, in pixels of the page
};

const volumes = new Map();
async function volume(text) {
  if (!volumes.has(text)) volumes.set(text, new Uint8Array(await (await unpacked(text)).arrayBuffer()));
  return volumes.get(text);
}
const theCase = () => data.cases[byId("case").value];
const across = () => PLANES[chosen("plane")].across;
// Else another choice came in between.
const isCurrent = (one, cell) => one === theCase() && cell === byId("cell").value;

async function drawPlanes() {
  const one = theCase(), cell = byId("cell").value;
  const [ct, truth, prediction] = await Promise.all([one.ct, one.truth, one.predictions[cell]].map(volume));
  if (!isCurrent(one, cell)) return;
  const name = chosen("plane"), plane = planeOf(name, one.shape, view.at), place = view.at[across()];
  const [low, high] = byId("window").value.split(" ").map((hu) => 255 * (hu - one.hu[0]) / (one.hu[1] - one.hu[0]));
  const grey = greyImage(plane, ct, low, high), how = chosen("labels"), isDifferent = byId("differences").checked;
  for (const [id, labels] of [["truth", truth], ["prediction", prediction]]) {
    const canvas = byId(id), context = canvas.getContext("2d");
    const matrix = fitted(canvas, plane, one.spacing, name);
    view.size = [matrix.a * plane.width / devicePixelRatio, matrix.d * plane.height / devicePixelRatio];
    context.setTransform(matrix);
    context.drawImage(drawn(grey), 0, 0);
    context.imageSmoothingEnabled = false;
    const showsErrors = isDifferent && id === "prediction";
    if (showsErrors) overlay(context, plane, STRONG, differenceColour(truth, prediction));
    else if (how === "filled") overlay(context, plane, FILL, (i) => labels[i] ? data.labels[labels[i]].colour : null);
    if (how === "contours") outline(context, plane, labels, matrix);
    canvas.dataset.shown = `${id === "truth" ? id : cell}, ${name} ${place + 1}`;
    const marks = canvas.parentElement.querySelectorAll("span");
    PLANES[name].marks.forEach((mark, i) => { marks[i].textContent = mark; });
  }
  byId("slice").max = one.shape[across()] - 1;
  byId("slice").value = place;
  byId("place").textContent = `${place + 1} of ${one.shape[across()]}`;
  byId("shown-cell").textContent = cell;
}

// From voxels to the pixels of a canvas, which is cleared for it.
function fitted(canvas, { width, height }, spacing, name) {
  const { right, down } = PLANES[name], [w, h] = [width * spacing[right], height * spacing[down]]; // mm
  canvas.width = canvas.clientWidth * devicePixelRatio;
  canvas.height = canvas.clientHeight * devicePixelRatio;
  const scale = view.zoom * Math.min(canvas.width / w, canvas.height / h);
  const [x, y] = [canvas.width / 2 - view.centre[0] * w * scale, canvas.height / 2 - view.centre[1] * h * scale];
  return new DOMMatrix([scale * spacing[right], 0, 0, scale * spacing[down], x, y]);
}
function drawn(image) {
  const canvas = document.createElement("canvas");
  canvas.width = image.width; canvas.height = image.height;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
function overlay(context, plane, opacity, colourOf) {
  context.globalAlpha = opacity;
  context.drawImage(drawn(labelImage(plane, colourOf)), 0, 0);
  context.globalAlpha = 1;
}
function outline(context, plane, labels, matrix) {
  const width = 1.5 * devicePixelRatio;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.lineWidth = width;
  context.lineCap = "square";
  for (const [label, path] of contours(plane, labels, width / 2 / Math.min(matrix.a, matrix.d))) {
    const scaled = new Path2D();
    scaled.addPath(path, matrix);
    context.strokeStyle = `rgb(${data.labels[label].colour})`;
    context.stroke(scaled);
  }
}

function choose(select, names, wanted, values = names) {
  select.replaceChildren(...names.map((name, i) => new Option(name, values[i])));
  if (values.includes(wanted)) select.value = wanted;
}
function offerWindows() {
  const [lowest, highest] = theCase().hu;
  const offered = Object.entries(WINDOWS).filter(([, [low, high]]) =>
    Math.min(high, highest) - Math.max(low, lowest) >= OFFERED * (high - Math.max(low, AIR)));
  const names = offered.map(([name, [low, high]]) => `${name} (W ${high - low}, L ${(low + high) / 2})`);
  const values = [...offered.map(([, hu]) => hu), theCase().hu].map((hu) => hu.join(" "));
  choose(byId("window"), [...names, "all values"], byId("window").value, values);
}
function drawLegend() {
  const shown = data.labels.slice(1).map(({ name, colour }) => [name, colour]);
  if (byId("differences").checked) shown.push(["missed", MISSED], ["added", ADDED], ["another organ", CONFUSED]);
  byId("legend").replaceChildren(...shown.map(([name, colour]) => {
    const organ = document.createElement("span"), swatch = document.createElement("span");
    organ.className = "organ";
    swatch.className = "swatch";
    swatch.style.background = `rgb(${colour})`;
    organ.append(swatch, name);
    return organ;
  }));
}

function redraw() { drawLegend(); return Promise.all([drawPlanes(), drawSolid()]); }
async function toLargestError() {
  const one = theCase(), cell = byId("cell").value;
  const [truth, prediction] = await Promise.all([one.truth, one.predictions[cell]].map(volume));
  if (!isCurrent(one, cell)) return;
  view.at = largestError(truth, prediction, one.shape);
  await drawPlanes();
}
function newCase(cell) {
  choose(byId("cell"), Object.keys(theCase().predictions), cell || byId("cell").value);
  volumes.clear();
  offerWindows();
  wholeSlice();
  view.at = theCase().shape.map((n) => n >> 1);
  drawLegend();
  return Promise.all([toLargestError(), drawSolid()]);
}
function toSlice(place) {
  view.at[across()] = Math.max(0, Math.min(theCase().shape[across()] - 1, place));
  drawPlanes();
}
function step(steps) { toSlice(view.at[across()] + steps); }
function zoom(factor) {
  view.zoom = Math.max(1, Math.min(16, view.zoom * factor));
  if (view.zoom === 1) view.centre = [0.5, 0.5];
  drawPlanes();
}
function wholeSlice() { view.zoom = 1; view.centre = [0.5, 0.5]; }
function next(select, steps = 1) {
  select.selectedIndex = (select.selectedIndex + steps + select.length) % select.length;
  redraw();
}
function pick(name, value) {
  const all = radios(name), place = all.findIndex((radio) => radio.checked);
  (value ? all.find((radio) => radio.value === value) : all[(place + 1) % all.length]).checked = true;
  if (name === "plane") wholeSlice();
  redraw();
}

const KEYS = {
  ArrowUp: () => step(1), ArrowRight: () => step(1), ArrowDown: () => step(-1), ArrowLeft: () => step(-1),
  1: () => pick("plane", "axial"), 2: () => pick("plane", "coronal"), 3: () => pick("plane", "sagittal"),
  c: () => pick("labels"), d: () => byId("differences").click(), w: () => next(byId("window")), e: toLargestError,
  n: () => next(byId("cell")), p: () => next(byId("cell"), -1),
  "+": () => zoom(1.25), "=": () => zoom(1.25), "-": () => zoom(0.8), 0: () => { wholeSlice(); drawPlanes(); },
};
function listen() {
  byId("case").addEventListener("change", () => newCase());
  for (const id of ["cell", "window", "differences"]) byId(id).addEventListener("change", redraw);
  for (const radio of ["plane", "labels", "solid"].flatMap(radios))
    radio.addEventListener("change", () => pick(radio.name, radio.value));
  byId("slice").addEventListener("input", (event) => toSlice(+event.target.value));
  byId("worst").addEventListener("click", toLargestError);
  byId("whole").addEventListener("click", KEYS[0]);
  byId("views").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== byId("views") || !KEYS[event.key]) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  for (const canvas of [byId("truth"), byId("prediction")]) watchMouse(canvas);
  new ResizeObserver(drawPlanes).observe(byId("truth"));
  for (const link of document.querySelectorAll("a[data-case]")) link.addEventListener("click", () => {
    byId("case").value = link.dataset.case;
    newCase(link.dataset.cell);
  });
}
function watchMouse(canvas) {
  let turned = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) { zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15); return; }
    turned += event.deltaY;
    if (Math.abs(turned) < WHEEL) return;
    step(-Math.sign(turned)); // down is towards the feet
    turned = 0;
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!canvas.hasPointerCapture(event.pointerId) || view.zoom === 1) return;
    const moved = [view.centre[0] - event.movementX / view.size[0], view.centre[1] - event.movementY / view.size[1]];
    view.centre = moved.map((place) => Math.max(0, Math.min(1, place)));
    drawPlanes();
  });
}
