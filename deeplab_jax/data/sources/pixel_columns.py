"""Tells which column of a table holds the images and which the masks."""

from __future__ import annotations

from collections.abc import Sequence

from deeplab_jax.data.sources.path_words import Role, folder_words
from deeplab_jax.types import UserError


def find_columns(columns: Sequence[str], source: str) -> tuple[str, str]:
    """(image column, mask column) among the columns that hold image files.

    Raises:
      UserError: if there is not one of each.
    """
    roles = {column: folder_words(column).role for column in columns}
    images = [column for column in columns if roles[column] is Role.IMAGE]
    masks = [column for column in columns if roles[column] is Role.MASK]
    if len(images) != 1 or len(masks) != 1:
        found = ", ".join(columns) or "none"
        raise UserError(
            f"{source}: must have one column of images and one of masks, as 'image' and 'mask'; those with images are "
            f"{found}"
        )
    return images[0], masks[0]
