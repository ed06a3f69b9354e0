"""What can be wrong with a data set: the kinds of findings and their severities."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

# Kind -> (severity, description). Errors stop training or falsify its scores; warnings may be intended.
KINDS: Mapping[str, tuple[str, str]] = {
    "missing_file": ("error", "listed files that do not exist"),
    "unreadable": ("error", "files that are not images, truncated or damaged"),
    "other_format": ("error", "images whose channels or type differ from the data set's"),
    "size_mismatch": ("error", "masks whose size differs from their image's"),
    "invalid_value": ("error", "masks with values that are no class"),
    "palette_as_rgb": ("error", "palette masks saved as RGB"),
    "palette_as_grey": ("error", "palette masks saved as the brightness of their colours"),
    "ids_as_rgb": ("error", "masks with class ids in three channels"),
    "color_mask": ("error", "masks with colours that belong to no class"),
    "unclear_orientation": ("error", "masks of turned photographs, drawn upright or not"),
    "soft_mask": ("error", "masks of fractions instead of class ids"),
    "palette_disagrees": ("error", "masks whose palettes contradict their indices"),
    "lossy_mask": ("error", "masks in a lossy format"),
    "vanished_class": ("error", "classes that nothing can be learned of"),
    "shared_image": ("error", "images shared by training and evaluation"),
    "missing_split": ("error", "splits named in the config that the data set lacks"),
    "duplicate_image": ("warning", "images that occur more than once"),
    "reduced_image": ("warning", "images that 8-bit RGB truncates"),
    "missing_values": ("warning", "images with NaN or infinite values"),
    "constant_channel": ("warning", "channels of the same value everywhere"),
    "cut_off_image": ("warning", "images with missing data (grey) at the bottom"),
    "all_ignored": ("warning", "masks without a labelled pixel"),
    "all_background": ("warning", "masks with only the first class"),
    "unseen_class": ("warning", "classes that are evaluated but never trained"),
    "absent_class": ("note", "classes absent from a split"),
    "overlap": ("note", "splits that share images"),
    "unused_files": ("note", "files that are not used"),
    "decoder_warning": ("note", "files with odd metadata, of which decoders warn"),
    "wrong_suffix": ("note", "files whose suffix does not match their content"),
}
SEVERITIES = ("error", "warning", "note")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One fault or oddity of a file or split."""

    kind: str
    file: str  # its path, or the name of a split or example without a file
    message: str  # one line, beginning with the file
    values: Mapping[str, int] = dataclasses.field(default_factory=dict)  # value or '#rrggbb' -> pixels
    convertible: bool = False  # the mask's class ids can be recovered and written
    splits: tuple[str, ...] = ()  # splits that list the file

    @property
    def severity(self) -> str:
        return KINDS[self.kind][0]


def num_of(severity: str, findings: Iterable[Finding]) -> int:
    """The number of findings with that severity."""
    return sum(finding.severity == severity for finding in findings)
