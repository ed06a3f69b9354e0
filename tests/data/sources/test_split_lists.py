"""Lists of samples in whatever form and encoding programs write them."""

from __future__ import annotations

import pytest
from made_files import write_folder

from deeplab_jax.data.sources.find_pairs import find_splits
from deeplab_jax.types import UserError

NAMES = ["im00", "im01", "im02"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Read only."""
    return write_folder(tmp_path_factory.mktemp("lists") / "data", NAMES)


@pytest.fixture
def listed(root, tmp_path):
    """Lists of the same files: name, content -> samples of its split."""
    folder = tmp_path / "data"
    (folder / "splits").mkdir(parents=True)
    for kind in ("images", "masks"):
        (folder / kind).symlink_to(root / kind)

    def read(content: str | bytes, name: str = "train.txt"):
        data = content if isinstance(content, bytes) else content.encode()
        (folder / "splits" / name).write_bytes(data)
        return [
            (sample.name, str(sample.image.relative_to(folder)), str(sample.mask.relative_to(folder)))
            for sample in find_splits(folder).splits["train"]
        ]

    return read


EXPECTED = [(name, f"images/{name}.png", f"masks/{name}.png") for name in ("im02", "im00")]


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}.png",
        "{}.jpg",
        "images/{}.png",
        "./images/{}.png",
        "data/images/{}.png",
        "/home/someone/data/images/{}.png",
        "C:\\data\\images\\{}.png",
        "images\\{}.png",
        '"{}"',
        "{} 1",
        "{} -1",
        "images/{}.png masks/{}.png",
        "images/{}.png\tmasks/{}.png",
        "images\\{}.png masks\\{}.png",
        "images/{}.png,masks/{}.png",
        '"images/{}.png";"masks/{}.png"',
        "{}.png {}.png",
    ],
)
def test_entries(listed, line):
    assert listed("".join(f"{line.replace('{}', name)}\n" for name in ("im02", "im00"))) == EXPECTED


@pytest.mark.parametrize(
    "content",
    [
        "image,mask\nim02.png,im02.png\nim00.png,im00.png\n",
        "im02.png,im02.png\nim00.png,im00.png\n",
        "id;site;file;area\n1;north;images/im02.png;5\n2;south;images/im00.png;3\n",
        'label,path\n1,"im02"\n0,"im00"\n',
        "\ufeffimage\r\nim02\r\nim00\r\n",
    ],
)
def test_tables(listed, content):
    assert listed(content, "train.csv") == EXPECTED


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(listed, encoding):
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    assert listed((mark + "im02\r\nim00\r\n").encode(encoding)) == EXPECTED


def test_masks_elsewhere_are_named_in_the_second_column(tmp_path):
    root = write_folder(tmp_path / "data", NAMES)
    (root / "masks").rename(root / "ground")
    (root / "ground" / "im00.png").rename(root / "ground" / "other.png")
    (root / "train.txt").write_text("images/im00.png ground/other.png\n")
    (sample,) = find_splits(root).splits["train"]
    assert (sample.image, sample.mask) == (root / "images" / "im00.png", root / "ground" / "other.png")


def test_names_with_spaces(tmp_path):
    names = [f"weed ({index}) 1" for index in range(3)]
    root = write_folder(tmp_path / "data", names, {"train": names})
    assert [sample.name for sample in find_splits(root).splits["train"]] == names
    (root / "splits" / "train.txt").write_text("images/weed (1) 1.png masks/weed (2) 1.png\n")
    (sample,) = find_splits(root).splits["train"]
    assert sample.mask == root / "masks" / "weed (2) 1.png"


def test_a_bare_name_of_two_images(tmp_path):
    root = write_folder(tmp_path / "data", ["site_a/000", "site_b/000"], {"train": ["000"]})
    with pytest.raises(UserError) as caught:
        find_splits(root)
    assert str(caught.value) == (
        f"{root}/splits/train.txt: '000' may be images/site_a/000.png or images/site_b/000.png; write the path"
    )
    (root / "splits" / "train.txt").write_text("site_b/000\n")
    assert [sample.name for sample in find_splits(root).splits["train"]] == ["site_b/000"]


def test_a_folder_that_does_not_exist_is_no_other(tmp_path):
    root = write_folder(tmp_path / "data", ["site_a/000", "site_a/001"], {"train": ["site_c/000"]})
    (sample,) = find_splits(root).splits["train"]
    assert not sample.image.exists()


def test_two_lists_of_one_split(listed):
    listed("im00\n")
    with pytest.raises(UserError, match=r"splits/train\.txt: and train\.csv list the same split; keep one of them"):
        listed("im00\n", "train.csv")


def test_lists_beside_the_folders_and_of_cvat(tmp_path):
    root = write_folder(tmp_path / "data", NAMES)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "default.txt").write_text("im00\nim01\nim02\n")  # all images: no split
    assert list(find_splits(root).splits) == ["train", "val"]
    (root / "train_list.txt").write_text("im00\nim01\n")
    (root / "valid.txt").write_text("im02\n")
    assert {split: len(samples) for split, samples in find_splits(root).splits.items()} == {"train": 2, "val": 1}
