"""A configuration as a guest: its devices, its lifecycle, and what goes to xl."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.toolstack.configuration.test_grammar import Plain, plain, settings, written_files
from xenvirtio.errors import ConfigError, UsageError
from xenvirtio.toolstack.configuration.configuration import GuestConfig, read
from xenvirtio.toolstack.configuration.grammar import Source, parse
from xenvirtio.toolstack.configuration.guest import Guest, guest_from

if TYPE_CHECKING:
    from pathlib import Path


def config(text: str) -> GuestConfig:
    return GuestConfig("guest.cfg", parse(Source("guest.cfg", text)))


def guest(text: str) -> Guest:
    return guest_from(config(text))


def for_xl(text: str) -> str:
    made = guest("uuid='11111111-2222-3333-4444-555555555555'\n" + text)
    return made.xl_config.removeprefix("uuid='11111111-2222-3333-4444-555555555555'\n")


def test_disks_and_nics_are_numbered_and_ordered() -> None:
    made = guest("name='g'; disk=['/b,,vdb','/x,,xvda','/a,,vda']; vif=['model=virtio','', 'model=virtio']")
    assert [(d.number, d.vdev, d.device_id) for d in made.devices] == [
        (0, "vda", 2),
        (1, "vdb", 2),
        (256, "eth0", 1),
        (257, "eth1", 1),
    ]


def test_memory_access_holds_for_all_or_for_one() -> None:
    text = "name='g'; memory_access='foreign'; type='pvh'; vif=['model=virtio']"
    made = guest(text + "; disk=['/a,,vda','vdev=vdb,memory_access=grant,target=/b']")
    assert [device.memory_access for device in made.devices] == ["foreign", "grant", "foreign"]


def test_a_map_cache_is_of_each_device_that_is_mapped() -> None:
    text = "name='g'; memory_access='foreign'; map_cache=32; type='pvh'"
    made = guest(text + "; disk=['/a,,vda','vdev=vdb,memory_access=grant,target=/b']")
    assert [device.settings.get("map-cache") for device in made.devices] == ["32", None]
    assert "map_cache" not in made.xl_config
    for wrong in ("'big'", "65537", "'-1'", "'111111111'"):
        with pytest.raises(ConfigError, match="is no size"):
            guest(f"name='g'; map_cache={wrong}")


def test_the_default_is_grant() -> None:
    made = guest("name='g'; disk=['/a,,vda']")
    assert made.devices[0].host_settings(3)["memory-access"] == "grant"


def test_a_tap_is_named_by_its_domain_unless_the_configuration_names_it() -> None:
    made = guest("name='g'; vif=['model=virtio','model=virtio,vifname=mine']")
    assert [device.host_settings(12)["vifname"] for device in made.devices] == ["vio12.0", "mine"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = 'g' # words\n", "name = 'g'\n"),
        ("name='g'; disk=['/a,,vda']", "name='g'\n"),
        ("name='g'\ndisk=['/a,,vda', '/x,,xvda',]", "name='g'\ndisk = [ '/x,,xvda' ]\n"),
        ("name='g'\ndisk = [ '/x,,xvda',\n ]", "name='g'\ndisk = [ '/x,,xvda',\n ]\n"),
        ("name='g'\ndisk=['/x,,xvda']\ndisk+=['/a,,vda']", "name='g'\ndisk = [ '/x,,xvda' ]\n"),
        ("name='g'\ndisk=['/a,,vda']\ndisk=['/x,,xvda']", "name='g'\ndisk=['/a,,vda']\ndisk=['/x,,xvda']\n"),
        ("name='g'\nvif=['model=virtio','bridge=b']", "name='g'\nvif = [ 'bridge=b' ]\n"),
        ("name='g'; memory_access='grant'; a = [ [1], 2 ]", "name='g'\na = [ [1], 2 ]\n"),
        ("name='g'\nextra=\"a\\\\b\"\nextra+='\tc'", "name='g'\nextra=\"a\\\\b\"\nextra+='\tc'\n"),
    ],
)
def test_what_is_not_ours_goes_to_xl_as_it_is_written(text: str, expected: str) -> None:
    assert for_xl(text) == expected


def test_a_uuid_is_added_so_that_the_guest_keeps_it_over_reboots() -> None:
    made = guest("name='g'")
    assert made.xl_config == f"name='g'\nuuid = \"{made.uuid}\"\n"
    assert made.uuid != guest("name='g'").uuid


def effective(text: str, names: set[str]) -> dict[str, Plain]:
    """What libxlu ends up with: later settings replace, += extends what is of its kind."""
    values: dict[str, Plain] = {}
    for name, operator, value in settings(text):
        match values.get(name) if operator == "+=" else None, value:
            case str(before), str(more):
                values[name] = before + more
            case list(before), list(more):
                values[name] = before + more
            case _:
                values[name] = value
    return {name: value for name, value in values.items() if name not in names}


ours = {"name", "uuid", "type", "builder", "disk", "vif", "memory_access", "map_cache", "kernel", "ramdisk"}


@given(written_files(), st.lists(st.sampled_from(["/a,,vda", "/x,,xvda", "/y,raw,hdc,r"]), unique=True))
def test_xl_gets_the_same_values_of_everything_that_is_not_ours(
    file: tuple[str, list[tuple[str, str, Plain]]], disks: list[str]
) -> None:
    text, expected = file
    if any(
        name in ours or name.startswith("on_") or name in ("root", "extra", "cmdline")
        for name, _, _ in expected
    ):
        return
    whole = f"{text}\nname='g'\ndisk={disks!r}\n"
    made = guest(whole)
    assert effective(made.xl_config, ours) == effective(whole, ours)
    left = [disk for disk in disks if "vda" not in disk or "xvda" in disk]
    assert effective(made.xl_config, set()).get("disk", []) == left
    assert [device.vdev for device in made.devices] == (["vda"] if "/a,,vda" in disks else [])


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("memory=1", None, "guest.cfg: the guest has no name"),
        ("name=''", (1, 6), "the guest has no name"),
        ("name='a\\nb'", (1, 6), "cannot be the name of a guest"),
        ("name='\udcff'", (1, 6), "cannot be the name of a guest"),
        (f"name='{'n' * 201}'", (1, 6), "cannot be the name of a guest"),
        ("name='g'\ntype='vax'", (2, 6), "unknown guest type 'vax'"),
        ("name='g'\nbuilder='vax'", (2, 9), "builder is hvm or generic"),
        ("name='g'\nuuid='7'", (2, 6), "'7' is no UUID"),
        ("name=['g']", (1, 1), "name is one value, not a list"),
        ("name='g'\ndisk='/a,,vda'", (2, 6), "disk is a list"),
        ("name='g'\ndisk=['/a,,vda',['x']]", (2, 17), "a string, not a list"),
        ("name='g'\ndisk=['/a,,vda',\n '/b,,vda']", (3, 2), "vda is given twice"),
        ("name='g'\ndisk=['/a,,vda', '/a,,vdb,r']", (2, 18), "vdb and vda are the same image"),
        ("name='g'\ndisk=['/a,,xvda', '/a,,vdb,r']", (2, 19), "vdb and xvda are the same image"),
        ("name='g'\ndisk=['/x/../a,,vda,r', 'phy:/a,hda,w']", (2, 25), "hda and vda are the same image"),
        (
            "name='g'\nvif=['model=virtio,mac=0:16:3e:0:0:1','model=virtio,mac=0:16:3e:0:0:1']",
            (2, 39),
            "twice",
        ),
        ("name='g'\nvif=['model=virtio,vifname=a','model=virtio,vifname=a']", (2, 31), "twice"),
        ("name='g'\nmemory_access='none'", (2, 15), "unknown memory_access 'none'"),
        ("name='g'\non_crash='rename-restart'", (2, 10), "cannot be done"),
    ],
)
def test_a_mistake_is_shown_in_its_place(text: str, place: tuple[int, int] | None, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        guest(text)
    assert words in caught.value.message
    assert caught.value.exit_status == 2
    if place is not None:
        assert isinstance(caught.value, ConfigError)
        assert (caught.value.line, caught.value.column) == place


def test_one_image_may_be_read_by_two_disks() -> None:
    assert len(guest("name='g'; disk=['/a,,vda,r','/a,,vdb,r']").devices) == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "pv"),
        ("type='pvh'", "pvh"),
        ("type='hvm'", "hvm"),
        ("builder='hvm'", "hvm"),
        ("builder='generic'", "pv"),
    ],
)
def test_the_type_of_a_guest(text: str, kind: str) -> None:
    assert guest(f"name='g'; {text}").type == kind


def test_lifecycle_actions_are_xls_defaults_or_what_is_said() -> None:
    assert guest("name='g'; on_reboot='destroy'; on_crash='coredump-restart'").actions == {
        "poweroff": "destroy",
        "reboot": "destroy",
        "crash": "coredump-restart",
        "watchdog": "destroy",
        "soft-reset": "destroy",
    }


def test_a_pvh_guest_goes_on_with_the_next_kernel_if_nothing_else_is_said() -> None:
    assert guest("name='g'; type='pvh'").actions["soft-reset"] == "soft-reset"
    assert guest("name='g'; type='pvh'; on_soft_reset='restart'").actions["soft-reset"] == "restart"
    for kind in ("pv", "hvm"):
        with pytest.raises(ConfigError, match="on_soft_reset = 'soft-reset' cannot be done"):
            guest(f"name='g'; type='{kind}'; on_soft_reset='soft-reset'")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 'extra += " iommu=soft"'),
        ("extra='quiet'", 'extra += " iommu=soft"'),
        ("extra='iommu=softer'", 'extra += " iommu=soft"'),
        ("cmdline='quiet'; extra='iommu=soft'", 'cmdline += " iommu=soft"'),
        ("extra='quiet'; extra += ' iommu=soft'", None),
        ("root='/dev/vda'; extra='iommu=soft'", None),
        ("cmdline='iommu=soft'", None),
        ("type='pvh'", None),
    ],
)
def test_foreign_access_to_a_pv_guest_without_iommu_soft_is_warned_about(text: str, line: str | None) -> None:
    made = guest(f"name='g'; memory_access='foreign'; disk=['/a,,vda']; {text}")
    assert len(made.warnings) == (line is not None)
    assert line is None or made.warnings[0].endswith(line)


def test_settings_of_the_command_line_come_last(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_text("name='a'\nmemory=1")
    made = guest_from(read(path, ["name='b'", "disk=['/a,,vda']"]))
    assert (made.name, made.devices[0].vdev) == ("b", "vda")
    assert made.xl_config.startswith("name='a'\nmemory=1\nname='b'\nuuid")


def test_a_mistake_on_the_command_line_names_the_argument(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_text("name='a'")
    with pytest.raises(ConfigError, match=r"<argument 2>:1:6: a value expected") as caught:
        read(path, ["memory=1", "name=b"])
    assert "quotes" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["none.cfg", ""])
def test_a_configuration_that_cannot_be_read_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="guest configuration"):
        read(tmp_path / name)


def test_bytes_that_are_no_utf_8_reach_xl_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "guest.cfg"
    path.write_bytes(b"name='g'\nextra='\xff\xfe'\n")
    assert b"extra='\xff\xfe'\n" in guest_from(read(path)).xl_config.encode("utf-8", "surrogateescape")
    assert plain(parse(Source("g", "a='\u00df'"))[0].value) == "ß"


def test_one_image_by_two_names_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.img").touch()
    (tmp_path / "link").symlink_to("a.img")
    with pytest.raises(ConfigError, match="vdb and vda are the same image"):
        guest(f"name='g'\ndisk=['{tmp_path}/a.img,,vda', '{tmp_path}/link,,vdb']")
    shared = guest(f"name='g'\ndisk=['{tmp_path}/a.img,,vda,r', '{tmp_path}/link,,xvdb,r']")
    assert [device.vdev for device in shared.devices] == ["vda"]
