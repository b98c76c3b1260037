"""What results can do beside holding tensors: go to other programs, be shown in a notebook, be drawn.

Each method imports what it needs when it is called, so that holding a result costs nothing but torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ResultMethods:
    """Of both kinds of result. Other programs get of an instance result each detection, of a label map each class that
    occurs as one object: see `pointrend.masks.export`.
    """

    def to_geojson(self: Any, *, tolerance: float = 0.0) -> dict[str, Any]:
        """A GeoJSON FeatureCollection of polygons in pixels, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_geojson

        return to_geojson(self, tolerance=tolerance)

    def to_labelme(self: Any, *, tolerance: float = 0.0, image_path: str = "") -> dict[str, Any]:
        """LabelMe's JSON with polygons, simplified to a tolerance in pixels."""
        from pointrend.masks.export import to_labelme

        return to_labelme(self, tolerance=tolerance, image_path=image_path)

    def to_label_studio(self: Any, *, tolerance: float = 0.0, image: str = "") -> dict[str, Any]:
        """A Label Studio task with this as its prediction; `image` is its file or URL, as Label Studio sees it."""
        from pointrend.masks.export import to_label_studio

        return to_label_studio(self, tolerance=tolerance, image=image)

    def to_yolo(self: Any, *, tolerance: float = 0.0) -> str:
        """YOLO-seg's label text: a line for each object, class number and outline as shares of width and height."""
        from pointrend.masks.export import to_yolo

        return to_yolo(self, tolerance=tolerance)

    def to_rle(self: Any) -> list[dict[str, Any]]:
        """COCO's compressed run lengths: `size` (H, W) and `counts`."""
        from pointrend.masks.export import to_rle

        return to_rle(self)

    def to_supervision(self: Any) -> Any:
        """`supervision.Detections`; needs the package supervision."""
        from pointrend.masks.export import to_supervision

        return to_supervision(self)

    def to_pandas(self: Any) -> Any:
        """A pandas DataFrame: a row for each object (class, label, score, x1, y1, x2, y2, area in pixels), of a label
        map for each class that occurs (with score 1).

        Raises:
            ImportError: pandas is not installed.
        """
        from pointrend.masks.export import to_pandas

        return to_pandas(self)

    def plot(self: Any, image: Any = None, **options: Any) -> Figure:
        """A matplotlib figure of the image with the prediction drawn on it.

        Args:
            image: a path, Pillow image, array (H, W, 3) or tensor (3, H, W) uint8 of the result's size; not needed
                where the result remembers its image (`Predictor` results do).
            options: of `plot_instances` or `plot_semantic`.

        Raises:
            ValueError: an image of another size, or none where the result has none.
        """
        from pointrend.visualize.figures import plot_result

        return plot_result(self, image, **options)

    def _repr_png_(self: Any) -> bytes:
        """For notebooks: the overlay, at most 1024 pixels long."""
        from pointrend.visualize.overlays import overlay_png

        return overlay_png(self)

    def _repr_html_(self: Any) -> str:
        """For notebooks: what the result holds, and the overlay."""
        import base64
        import html

        image = base64.b64encode(self._repr_png_()).decode()
        return f'<p>{html.escape(repr(self))}</p><img src="data:image/png;base64,{image}">'


class InstanceMethods(ResultMethods):
    """Of the objects found in an image."""

    def to_coco(
        self: Any, image_id: int | str, category_ids: Sequence[int] | None = None
    ) -> list[dict[str, Any]]:
        """Detections as COCO result records: `image_id, category_id, bbox` (x, y, width, height), `score` and
        `segmentation` (compressed RLE).

        Args:
            image_id: the data set's id of the image.
            category_ids: the data set's id of each of the K classes; the contiguous labels if not given.
        """
        from pointrend.masks.export import to_coco

        return to_coco(self, image_id, category_ids)

    def polygons(self: Any) -> list[list[list[tuple[float, float]]]]:
        """Outlines of each mask along pixel edges: for each of D masks its rings, each a list of (x, y) in pixels.

        Outer rings run clockwise (as seen on the screen), holes counter-clockwise.
        """
        from pointrend.masks.polygons import outline

        return [
            outline(window, offset)
            for window, offset in zip(self.masks.windows, self.masks.offsets.tolist(), strict=True)
        ]
