"""3D surface renderings of label maps."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyvista as pv
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.ndimage import find_objects, gaussian_filter
from skimage.measure import marching_cubes

from lightning_dice.data.labels import Label, LabelSet

SMOOTH_VOXELS = 0.5  # of the mask before its surface is found
LEVEL = 0.35  # of the smoothed mask; below a half, so that a vessel two voxels wide does not break
PIXELS = (620, 560)  # of a rendering, width and height
PROBE = "import pyvista as p; q = p.Plotter(off_screen=True); q.add_mesh(p.Sphere()); q.screenshot(return_img=True)"


@dataclass(frozen=True)
class Surface:
    """The surface of one class: vertices (V, 3) in mm along RAS axes, and triangles (T, 3) of their indices."""

    organ: Label
    vertices: np.ndarray
    triangles: np.ndarray


def surfaces_of(label: np.ndarray, labels: LabelSet, spacing_mm: tuple[float, float, float]) -> list[Surface]:
    """Surfaces of the organs in a label map (X, Y, Z), RAS+: marching cubes on the smoothed mask, then Taubin's
    filter."""
    found = []
    boxes = find_objects(label, max_label=len(labels) - 1)
    for index, (organ, box) in enumerate(zip(labels.organs, boxes, strict=True), start=1):
        if box is None:
            continue
        mask = np.pad(label[box] == index, 2).astype(np.float32)  # by the reach of the filter
        smooth = gaussian_filter(mask, SMOOTH_VOXELS)
        vertices, triangles, _, _ = marching_cubes(smooth, LEVEL, spacing=tuple(spacing_mm))
        mesh = pv.PolyData.from_regular_faces(vertices.astype(np.float32), triangles).smooth_taubin(n_iter=20)
        triangles = mesh.regular_faces
        corner = [side.start - 2 for side in box]
        vertices = np.asarray(mesh.points) + np.multiply(corner, spacing_mm)
        found.append(Surface(organ, vertices.astype(np.float32), triangles.astype(np.int32)))
    return found


@cache
def has_off_screen_gl() -> bool:
    """Whether PyVista can draw here; tried in a process of its own, which a missing driver may bring down."""
    return subprocess.run([sys.executable, "-c", PROBE], capture_output=True, timeout=120).returncode == 0


def bounds_of(surfaces: Sequence[Surface]) -> np.ndarray:
    """Lowest and highest corner in mm, (2, 3), of all of them."""
    points = np.concatenate([surface.vertices for surface in surfaces])
    return np.stack([points.min(axis=0), points.max(axis=0)])


def render(surfaces: Sequence[Surface], bounds_mm: np.ndarray) -> np.ndarray:
    """The surfaces from the front, a little from above: the patient's right is on the left.

    Args:
        bounds_mm: (2, 3), what the view fits; the truth's, so that predictions compare with it and with each other.

    Returns:
        uint8 (height, width, 3).
    """
    return (_render_pyvista if has_off_screen_gl() else _render_matplotlib)(surfaces, bounds_mm)


def _render_pyvista(surfaces: Sequence[Surface], bounds_mm: np.ndarray) -> np.ndarray:
    with pv.vtk_verbosity("off"):  # it warns that there is no screen
        plotter = pv.Plotter(off_screen=True, window_size=list(PIXELS), lighting="light kit")
        plotter.set_background("white")  # type: ignore[arg-type]  # its decorator loses the signature
        plotter.enable_anti_aliasing("ssaa")
        for surface in surfaces:
            mesh = pv.PolyData.from_regular_faces(surface.vertices, surface.triangles)
            look: dict[str, Any] = {"smooth_shading": True, "specular": 0.3, "opacity": surface.organ.opacity}
            plotter.add_mesh(mesh, color=surface.organ.colour, **look)
        centre, size = bounds_mm.mean(axis=0), np.ptp(bounds_mm, axis=0)
        plotter.camera.focal_point = centre
        plotter.camera.position = centre + 4 * size.max() * np.array([-0.25, 1.0, 0.15])
        plotter.camera.up = (0, 0, 1)
        plotter.camera.parallel_projection = True
        plotter.camera.parallel_scale = 0.55 * max(size[2], size[0] * PIXELS[1] / PIXELS[0])  # half the height, in mm
        picture = plotter.screenshot(return_img=True)
        plotter.close()
        return np.asarray(picture)[..., :3]


def _render_matplotlib(surfaces: Sequence[Surface], bounds_mm: np.ndarray) -> np.ndarray:
    figure = Figure(figsize=(PIXELS[0] / 100, PIXELS[1] / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axis: Any = figure.add_axes((0, 0, 1, 1), projection="3d", proj_type="ortho")
    for surface in surfaces:
        look = {"color": surface.organ.colour, "alpha": surface.organ.opacity, "linewidth": 0}
        axis.plot_trisurf(*surface.vertices.T, triangles=surface.triangles, **look)
    for axis_name, limits in zip("xyz", bounds_mm.T, strict=True):
        getattr(axis, f"set_{axis_name}lim")(*limits)
    axis.set_box_aspect(np.ptp(bounds_mm, axis=0), zoom=1.3)
    axis.view_init(elev=8, azim=104)  # from the front
    axis.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
