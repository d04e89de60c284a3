// Surfaces, made of the label map where they are shown: surface nets (Gibson 1998, MICCAI), smoothed by Taubin's filter
// (1995, SIGGRAPH).
const TAUBIN = [0.5, -0.53], ROUNDS = 10;
const CAMERA = { eye: { x: -0.4, y: 1.9, z: 0.3 }, projection: { type: "orthographic" } }; // from the front

// One label's surface in a volume (Z, Y, X): vertices as [x, y, z] in voxels, an array each, and quads of their
// indices, four in a row, anticlockwise from outside.
function surfaceNet(labels, shape, label) {
  const [nx, ny, nz] = shape, vertices = [[], [], []], quads = [], known = new Map();
  const isInside = (x, y, z) =>
    x >= 0 && y >= 0 && z >= 0 && x < nx && y < ny && z < nz && labels[(z * ny + y) * nx + x] === label;
  const vertex = (x, y, z) => { // in the middle of the eight voxels from [x - 1, y - 1, z - 1] to [x, y, z]
    const cube = (z * (ny + 1) + y) * (nx + 1) + x;
    if (!known.has(cube)) {
      known.set(cube, vertices[0].length);
      [x, y, z].forEach((place, axis) => vertices[axis].push(place - 0.5));
    }
    return known.get(cube);
  };
  const add = (isOutward, ...corners) => {
    for (const corner of isOutward ? corners : corners.reverse()) quads.push(vertex(...corner));
  };
  const [low, high] = boundsOf(labels, shape, label);
  // Wherever the surface passes between two neighbours, the four cubes around them have a vertex each.
  for (let z = low[2] - 1; z <= high[2]; z++) for (let y = low[1] - 1; y <= high[1]; y++)
    for (let x = low[0] - 1; x <= high[0]; x++) {
      const here = isInside(x, y, z), [i, j, k] = [x + 1, y + 1, z + 1];
      if (here !== isInside(i, y, z)) add(here, [i, y, z], [i, j, z], [i, j, k], [i, y, k]);
      if (here !== isInside(x, j, z)) add(here, [x, j, z], [x, j, k], [i, j, k], [i, j, z]);
      if (here !== isInside(x, y, k)) add(here, [x, y, k], [i, y, k], [i, j, k], [x, j, k]);
    }
  return { vertices: vertices.map((places) => smoothed(places, quads)), quads };
}
function boundsOf(labels, [nx, ny, nz], label) {
  const low = [nx, ny, nz], high = [-1, -1, -1];
  for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++)
    if (labels[i] === label) [x, y, z].forEach((place, axis) => {
      low[axis] = Math.min(low[axis], place);
      high[axis] = Math.max(high[axis], place);
    });
  return [low, high];
}
function smoothed(places, quads) {
  const current = Float64Array.from(places);
  const counts = new Float64Array(places.length), sums = new Float64Array(places.length);
  for (const corner of quads) counts[corner] += 2;
  for (let round = 0; round < ROUNDS; round++) for (const factor of TAUBIN) {
    sums.fill(0);
    for (let i = 0; i < quads.length; i += 4) for (let side = 0; side < 4; side++) {
      const [a, b] = [quads[i + side], quads[i + (side + 1) % 4]];
      sums[a] += current[b]; sums[b] += current[a];
    }
    for (let i = 0; i < current.length; i++) current[i] += factor * (sums[i] / counts[i] - current[i]);
  }
  return current;
}

// Plotly's traces, in mm along RAS axes.
function traces(labels, { shape, spacing }) {
  const present = new Set(labels);
  return data.labels.flatMap(({ name, colour, opacity }, label) => {
    if (!label || !present.has(label)) return [];
    const { vertices, quads } = surfaceNet(labels, shape, label), [i, j, k] = [[], [], []];
    for (let q = 0; q < quads.length; q += 4) { // two triangles each
      i.push(quads[q], quads[q]);
      j.push(quads[q + 1], quads[q + 2]);
      k.push(quads[q + 2], quads[q + 3]);
    }
    const toRas = (place, axis) => spacing[axis] * (axis === 2 ? place : shape[axis] - 1 - place);
    const [x, y, z] = vertices.map((places, axis) => places.map((place) => toRas(place, axis)));
    const look = { color: `rgb(${colour})`, opacity, hoverinfo: "name", showlegend: true, flatshading: false };
    return [{ type: "mesh3d", x, y, z, i, j, k, name, ...look }];
  });
}
async function drawSolid() {
  const one = theCase(), cell = byId("cell").value, which = chosen("solid");
  const labels = await volume(which === "truth" ? one.truth : one.predictions[cell]);
  await ready;
  if (!isCurrent(one, cell) || which !== chosen("solid")) return;
  const shown = `${which === "truth" ? which : cell}, ${byId("case").value}`, solid = byId("solid");
  if (solid.dataset.shown === shown) return;
  solid.dataset.shown = shown;
  const { color, backgroundColor } = getComputedStyle(document.body);
  const scene = { aspectmode: "data", camera: CAMERA };
  for (const [axis, title] of [["xaxis", "left – right"], ["yaxis", "back – front"], ["zaxis", "feet – head"]])
    scene[axis] = { title: { text: title }, showticklabels: false, gridcolor: "#888888" };
  const legend = data.labels.length > 11 ? {} : { orientation: "h" };
  const look = { margin: { t: 0, b: 0, l: 0, r: 0 }, font: { color }, paper_bgcolor: backgroundColor };
  const layout = { scene, legend, uirevision: "kept", ...look };
  await Plotly.react("solid", traces(labels, one), layout, { responsive: true, displaylogo: false });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  delete byId("solid").dataset.shown;
  drawSolid();
});

if (Object.keys(data.cases).length) {
  choose(byId("case"), Object.keys(data.cases));
  listen();
  newCase();
} else hide("viewer");
