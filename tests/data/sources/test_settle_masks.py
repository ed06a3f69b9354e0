"""What the values in a folder's masks mean: told from the masks, declared, or refused; never wrong in silence."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from made_binary import disc_ids, save_grey, write_discs
from PIL import Image

from deeplab_jax.data.datasets import folder
from deeplab_jax.types import UserError

NAMES = ("background", "disc")


def open_discs(root, task=""):
    return folder.open_dataset(str(root), str(root.parent / "prepared"), task)


def labels(dataset):
    source = dataset.open_split("train")
    return [source[index].label for index in range(len(source))]


def refusal(root, task=""):
    with pytest.raises(UserError) as caught:
        open_discs(root, task).open_split("train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def of_value(value):
    return lambda ids, path: save_grey((ids * value).astype(np.uint8), path)


def one_bit(ids, path):
    Image.fromarray(ids * 255).convert("1").save(path)


def three_channels(ids, path):
    Image.fromarray(np.repeat(ids[..., None] * 255, 3, axis=2)).save(path)


def opaque(ids, path):
    Image.fromarray(np.dstack([ids * 255] * 3 + [np.full_like(ids, 255)])).save(path)


def in_alpha(ids, path):
    Image.fromarray(np.dstack([np.zeros_like(ids)] * 3 + [ids * 255])).save(path)


def one_bit_tiff(ids, path):
    Image.fromarray(ids * 255).convert("1").save(path.with_suffix(".tif"))


def mixed(ids, path):
    {"0": of_value(255), "1": one_bit_tiff, "2": opaque, "3": three_channels}[path.stem](ids, path)


BINARY = {
    "0 and 255": (of_value(255), NAMES, "binary: 0 and 255 in all 4 masks; 255 is 'disc'"),
    "bits": (one_bit, NAMES, "binary: masks of one bit; those set are 'disc'"),
    "bits in TIFF": (one_bit_tiff, NAMES, "binary: masks of one bit; those set are 'disc'"),
    "three channels": (three_channels, NAMES, "binary: 0 and 255 in all 4 masks; 255 is 'disc'"),
    "opaque": (opaque, NAMES, "binary: 0 and 255 in all 4 masks; 255 is 'disc'"),
    "alpha": (in_alpha, NAMES, "binary: 0 and 255 in all 4 masks; 255 is 'disc'"),
    "every form": (mixed, NAMES, "binary: 0, 255 and true in all 4 masks; 255 is 'disc'"),
    "one class, 0 and 255": (of_value(255), ("disc",), "binary: 0 and 255 in all 4 masks; 255 is 'disc'"),
    "one class, 0 and 1": (of_value(1), ("disc",), "binary: 0 and 1 in all 4 masks; 1 is 'disc'"),
    "one class, bits": (one_bit, ("disc",), "binary: masks of one bit; those set are 'disc'"),
}


@pytest.mark.parametrize("form", BINARY)
def test_masks_of_one_object_are_a_binary_task_and_it_is_said(tmp_path, form):
    save_mask, classes, note = BINARY[form]
    dataset = open_discs(write_discs(tmp_path / "data", save_mask, classes=classes))
    assert (dataset.info.task, dataset.info.class_names, dataset.info.num_outputs) == ("binary", NAMES, 1)
    assert note in dataset.notes
    for seed, label in enumerate(labels(dataset)):
        np.testing.assert_array_equal(label, disc_ids(seed))


def test_masks_in_the_alpha_channel_are_said_to_be(tmp_path):
    notes = open_discs(write_discs(tmp_path / "data", in_alpha)).notes
    assert any("4 of 4 masks are read from their alpha channel" in note for note in notes)


@pytest.mark.parametrize("save_mask", [of_value(255), of_value(1), one_bit])
def test_without_a_classes_file_one_object_needs_none(tmp_path, save_mask):
    dataset = open_discs(write_discs(tmp_path / "data", save_mask, classes=None))
    assert (dataset.info.task, dataset.info.class_names) == ("binary", ("background", "object"))
    np.testing.assert_array_equal(labels(dataset)[1], disc_ids(1))


def test_without_a_classes_file_more_than_one_object_is_refused(tmp_path):
    told = refusal(write_discs(tmp_path / "data", classes=None, num_objects=2))
    assert "its masks hold 0, 1 and 2 (in all 4 masks): more than an object and its background" in told


def test_ids_of_two_classes_stay_two_classes_unless_declared(tmp_path):
    root = write_discs(tmp_path / "data")
    assert open_discs(root).info.task == "multiclass"
    assert open_discs(root, "binary").info.task == "binary"
    (root / "classes.json").write_text('{"class_names": ["background", "disc"], "task": "binary"}')
    assert open_discs(root).info.task == "binary"
    assert open_discs(root, "multiclass").info.task == "multiclass"  # the config goes first


def with_border(ids, path):
    ids = ids.copy()
    ids[:2] = 255
    save_grey(ids, path)


def test_255_beside_both_ids_is_ignored(tmp_path):
    dataset = open_discs(write_discs(tmp_path / "data", with_border))
    assert dataset.info.task == "multiclass"
    assert "255 is ignored: the masks hold it beside the class ids 0 and 1" in dataset.notes
    label = labels(dataset)[0]
    assert (label[:2] == 255).all()
    np.testing.assert_array_equal(label[2:], disc_ids(0)[2:])


def test_255_as_object_here_and_1_there_is_refused_with_both_remedies(tmp_path):
    root = write_discs(tmp_path / "data", lambda ids, path: of_value(255 if path.stem == "1" else 1)(ids, path))
    told = refusal(root)
    assert '"values": {"0": "background", "1": "disc", "255": "disc"} if 255 is \'disc\'' in told
    assert '"ignore_label": 255 if it is to be ignored' in told
    values = '{"class_names": ["background", "disc"], "values": {"0": "background", "1": "disc", "255": "disc"}}'
    (root / "classes.json").write_text(values)
    for seed, label in enumerate(labels(open_discs(root))):
        np.testing.assert_array_equal(label, disc_ids(seed))


def test_two_classes_declared_multiclass_with_0_and_255_are_refused_with_both_remedies(tmp_path):
    root = write_discs(tmp_path / "data", of_value(255))
    told = refusal(root, "multiclass")
    assert '"values": {"0": "background", "255": "disc"}' in told
    assert '"ignore_label": 255' in told
    told = refusal(write_discs(tmp_path / "one", of_value(255), classes=("disc",)), "multiclass")
    assert "has the class disc alone" in told
    assert '"task": "binary" into classes.json' in told


def test_a_value_beside_0_and_255_is_an_error_wherever_it_turns_up(tmp_path, monkeypatch):
    """Only some masks are looked at; the others are held to what these say."""
    monkeypatch.setattr("deeplab_jax.data.sources.mask_survey._NUM_SURVEYED", 2)
    root = write_discs(tmp_path / "data", of_value(255))
    save_grey(disc_ids(1), root / "masks" / "1.png")
    assert "1.png: holds the value 1 (" in refusal(root)
    assert any("in the 2 of 4 masks looked at" in note for note in open_discs(root).notes)


def test_blank_masks_of_one_class_are_refused(tmp_path):
    told = refusal(write_discs(tmp_path / "data", of_value(0), classes=("disc",)))
    assert "its masks hold nothing but 0 (in all 4 masks), so 'disc' cannot be told from the background" in told


def test_three_classes_are_no_binary_task(tmp_path):
    told = refusal(write_discs(tmp_path / "data", num_objects=2, classes=("ground", "a", "b")), "binary")
    assert 'has 3 classes and "task": "binary"' in told


def levels(*values):
    return lambda ids, path: save_grey(np.array(values, np.uint8)[ids], path)


PROPOSED = {
    "grey levels": (levels(0, 128, 255), '"values": {"0": "ground", "128": "a", "255": "b"}'),
    "ids from 1": (levels(1, 2, 3), '"values": {"1": "ground", "2": "a", "3": "b"}'),
}


@pytest.mark.parametrize("form", PROPOSED)
def test_a_value_map_is_proposed_and_taken(tmp_path, form):
    save_mask, values = PROPOSED[form]
    root = write_discs(tmp_path / "data", save_mask, num_objects=2, classes=("ground", "a", "b"))
    told = refusal(root)
    content = told[told.index("{") :]
    assert values in content
    (root / "classes.json").write_text(content)
    for seed, label in enumerate(labels(open_discs(root))):
        np.testing.assert_array_equal(label, disc_ids(seed, 2))


def test_ids_from_1_beside_an_unlabelled_0(tmp_path):
    root = write_discs(tmp_path / "data", num_objects=2, classes=("a", "b"))
    told = refusal(root)
    assert '"values": {"0": "ignore", "1": "a", "2": "b"}}; if 0 is a class too, name it first' in told
    (root / "classes.json").write_text('{"class_names": ["a", "b"], "values": {"0": "ignore", "1": "a", "2": "b"}}')
    np.testing.assert_array_equal(labels(open_discs(root))[0], np.array([255, 0, 1])[disc_ids(0, 2)])


COLORS = np.array([[0, 0, 0], [200, 10, 20], [10, 20, 200]], np.uint8)


def in_colors(ids, path):
    Image.fromarray(COLORS[ids]).save(path)


def test_colors_of_classes_are_read_exactly(tmp_path):
    classes = ("ground 0 0 0", "a 200 10 20", "b 10 20 200")
    root = write_discs(tmp_path / "data", in_colors, num_objects=2, classes=classes)
    np.testing.assert_array_equal(labels(open_discs(root))[0], disc_ids(0, 2))
    pixels = COLORS[disc_ids(2, 2)]
    pixels[3, 5] = (200, 10, 21)
    Image.fromarray(pixels).save(root / "masks" / "2.png")
    assert "2.png: holds the colour (200, 10, 21) (1 pixel), the first at row 3, column 5; valid are " in refusal(root)


def test_colors_can_be_given_a_meaning_one_by_one(tmp_path):
    values = {"0,0,0": "ignore", "#c80a14": "a", "10 20 200": "b"}
    root = write_discs(
        tmp_path / "data", in_colors, num_objects=2, classes={"class_names": ["a", "b"], "values": values}
    )
    np.testing.assert_array_equal(labels(open_discs(root))[0], np.array([255, 0, 1])[disc_ids(0, 2)])


def renumbered(ids, path):
    """As an image editor saves it: the palette begins with the colour that comes first."""
    picture = Image.fromarray(1 - ids)
    picture.putpalette([128, 0, 0, 0, 0, 0] + [7] * 762)
    picture.save(path)


def test_a_renumbered_palette_is_refused_until_index_or_color_is_chosen(tmp_path):
    root = write_discs(tmp_path / "data", renumbered)
    assert "its index 0 has the colour (128, 0, 0) of class 1" in refusal(root)
    for chosen, wanted in (("color", disc_ids(0)), ("index", 1 - disc_ids(0))):
        (root / "classes.json").write_text(f'{{"class_names": ["background", "disc"], "mask_palette": "{chosen}"}}')
        np.testing.assert_array_equal(labels(open_discs(root))[0], wanted)


def soft(ids, path):
    tifffile.imwrite(path.with_suffix(".tif"), np.where(ids, 0.98, 0.02).astype(np.float32))


def soft_grey(ids, path):
    save_grey(np.where(ids, 129, 126).astype(np.uint8), path)


@pytest.mark.parametrize("save_mask", [soft, soft_grey])
def test_soft_masks_are_cut_only_on_request(tmp_path, save_mask):
    root = write_discs(tmp_path / "data", save_mask)
    told = refusal(root)
    assert "0.02" in told if save_mask is soft else "holds the values 126" in told
    (root / "classes.json").write_text('{"class_names": ["background", "disc"], "threshold": 0.5}')
    dataset = open_discs(root)
    assert dataset.info.task == "binary"
    np.testing.assert_array_equal(labels(dataset)[0], disc_ids(0))


@pytest.mark.parametrize(
    ("field", "problem"),
    [
        ({"task": "binery"}, "has task='binery'; did you mean 'binary'?"),
        ({"threshold": 2}, r"has threshold=2; must be a share of the largest value, in \(0, 1\]"),
        ({"mask_palette": "colours"}, "has mask_palette='colours'; must be 'color' or 'index'"),
        ({"values": {}}, "has values={}; write"),
        ({"values": {"red": "disc"}}, "has the key 'red'; write a grey value"),
        ({"values": {"0,0,300": "disc"}}, "has the key '0,0,300'"),
        ({"values": {"0": "dics"}}, "names the class 'dics'; did you mean 'disc'?"),
        ({"values": {"0": 7}}, "names the class 7"),
    ],
)
def test_declarations_that_make_no_sense(tmp_path, field, problem):
    root = write_discs(tmp_path / "data", of_value(255), classes={"class_names": list(NAMES), **field})
    with pytest.raises(UserError, match=problem):
        open_discs(root)
