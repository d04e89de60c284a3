// Planes through a volume of bytes (Z, Y, X): slices from the feet, rows from the front, columns from the patient's
// right. Axes are 0 for X, 1 for Y, 2 for Z; `down` is turned over where the head, which comes last, is to be up.
const PLANES = {
  axial: { across: 2, right: 0, down: 1, marks: ["R", "L", "A", "P"] },
  coronal: { across: 1, right: 0, down: 2, marks: ["R", "L", "H", "F"] },
  sagittal: { across: 0, right: 1, down: 2, marks: ["A", "P", "H", "F"] },
};
const MISSED = [0, 255, 255], ADDED = [255, 0, 255], CONFUSED = [255, 255, 0];

// A plane's width and height in voxels, and the places of its voxels in the volume.
function planeOf(name, shape, at) {
  const { across, right, down } = PLANES[name], strides = [1, shape[0], shape[0] * shape[1]];
  const width = shape[right], height = shape[down], places = new Uint32Array(width * height);
  for (let row = 0; row < height; row++) {
    const start = at[across] * strides[across] + (down === 2 ? height - 1 - row : row) * strides[down];
    for (let column = 0; column < width; column++) places[row * width + column] = start + column * strides[right];
  }
  return { width, height, places };
}

// Per axis, the slice with the most voxels in which two label maps differ; the middle if they do not.
function largestError(truth, prediction, shape) {
  const [nx, ny, nz] = shape, counts = shape.map((n) => new Uint32Array(n));
  for (let z = 0, i = 0; z < nz; z++) for (let y = 0; y < ny; y++) for (let x = 0; x < nx; x++, i++)
    if (truth[i] !== prediction[i]) { counts[0][x]++; counts[1][y]++; counts[2][z]++; }
  return counts.map((count) => {
    const most = count.reduce((a, b) => Math.max(a, b));
    return most ? count.indexOf(most) : count.length >> 1;
  });
}

// RGBA of the CT, windowed from `low` to `high` in the volume's own values.
function greyImage(plane, ct, low, high) {
  const image = new ImageData(plane.width, plane.height);
  for (let i = 0; i < plane.places.length; i++) {
    const grey = 255 * (ct[plane.places[i]] - low) / (high - low); // clamped by the array
    image.data.set([grey, grey, grey, 255], 4 * i);
  }
  return image;
}

// RGBA of a voxel's label, or of how it differs from the truth; nothing of background.
function labelImage(plane, colourOf) {
  const image = new ImageData(plane.width, plane.height);
  for (let i = 0; i < plane.places.length; i++) {
    const colour = colourOf(plane.places[i]);
    if (colour) image.data.set([...colour, 255], 4 * i);
  }
  return image;
}
function differenceColour(truth, prediction) {
  return (place) => {
    if (truth[place] === prediction[place]) return null;
    return !prediction[place] ? MISSED : !truth[place] ? ADDED : CONFUSED;
  };
}

// The borders of each label in a plane, in voxels: a path per label, `inset` within it so that neighbours both show.
function contours(plane, labels, inset) {
  const paths = new Map(), { width, height, places } = plane;
  const at = (x, y) => x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[places[y * width + x]];
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const label = at(x, y);
    if (!label) continue;
    if (!paths.has(label)) paths.set(label, new Path2D());
    const path = paths.get(label), [left, right, top, bottom] = [x + inset, x + 1 - inset, y + inset, y + 1 - inset];
    const line = (x0, y0, x1, y1) => { path.moveTo(x0, y0); path.lineTo(x1, y1); };
    if (at(x - 1, y) !== label) line(left, y, left, y + 1);
    if (at(x + 1, y) !== label) line(right, y, right, y + 1);
    if (at(x, y - 1) !== label) line(x, top, x + 1, top);
    if (at(x, y + 1) !== label) line(x, bottom, x + 1, bottom);
  }
  return paths;
}
