from __future__ import annotations

import pytest

from grpo_dist.errors import PlanError
from grpo_dist.plan.specs.hardware import GPUS, LINKS, UnknownHardware, gpu, link

GIB = 2**30


@pytest.mark.parametrize(
    ("name", "tflops", "gigabytes_per_second", "gibibytes_on_the_box"),
    [
        ("t4", 65, 320, 16),
        ("a10", 125, 600, 24),
        ("l40s", 362.05, 864, 48),
        ("rtx-4090", 165.2, 1008, 24),
        ("a100-40gb", 312, 1555, 40),
        ("a100-80gb", 312, 2039, 80),
        ("h100", 989.4, 3350, 80),
        ("h200", 989.4, 4800, 141),
        ("b200", 2250, 8000, 180),
        ("h100-pcie", 756, 2000, 80),
        ("h100-nvl", 835, 3900, 94),
        ("gh200", 989.4, 4000, 96),
        ("a100-80gb-pcie", 312, 1935, 80),
        ("l4", 121, 300, 24),
        ("rtx-a6000", 154.8, 768, 48),
        ("rtx-3090", 71, 936, 24),
        ("rtx-5090", 209.5, 1792, 32),
        ("a30", 165, 933, 24),
        ("h20", 148, 4000, 96),
        ("h800-pcie", 756, 2000, 80),
        ("gb200", 2500, 8000, 186),
        ("b300", 2250, 8000, 288),
    ],
)
def test_data_sheet_units(name, tflops, gigabytes_per_second, gibibytes_on_the_box):
    found = gpu(name)
    assert found.flops == tflops * 1e12
    assert found.bandwidth == gigabytes_per_second * 1e9
    assert 0.91 * gibibytes_on_the_box < found.memory / GIB < gibibytes_on_the_box


def test_ridge_points_are_plausible():
    """FLOPs per byte at which a GPU turns from bandwidth- to compute-bound: 70 to 450; an H20 has little compute."""
    ridges = {name: found.flops / found.bandwidth for name, found in GPUS.items() if name not in ("cpu", "h20")}
    assert all(70 < ridge < 450 for ridge in ridges.values()), ridges


def test_every_gpu_names_a_link_and_a_source():
    assert all(found.link in LINKS and found.source for found in GPUS.values())


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("h100", "h100"),
        ("H100", "h100"),
        ("nvidia_h100_80gb_hbm3", "h100"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("a100", "a100-40gb"),
        ("a100_80gb", "a100-80gb"),
        ("nvidia_a100-sxm4-80gb", "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("nvidia_a100_80gb_pcie", "a100-80gb-pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb-pcie"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40", "l40"),
        ("NVIDIA A10G", "a10g"),
        ("NVIDIA A40", "a40"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("a6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA GeForce RTX 3090", "rtx-3090"),
        ("NVIDIA L40S PCIe", "l40s"),
        ("rtx_4090", "rtx-4090"),
        ("nvidia_geforce_rtx_4090", "rtx-4090"),
        ("tesla_t4", "t4"),
        ("Tesla T4", "t4"),
        ("nvidia_l40s", "l40s"),
        ("nvidia_h200", "h200"),
        ("nvidia_b200", "b200"),
        ("NVIDIA GeForce RTX 5090", "rtx-5090"),
        ("NVIDIA A30", "a30"),
        ("NVIDIA L20", "l20"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA H800", "h800"),
        ("NVIDIA H800 PCIe", "h800-pcie"),
        ("NVIDIA A800-SXM4-80GB", "a800"),
        ("NVIDIA A800 80GB PCIe", "a800-pcie"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("NVIDIA-H100-80GB-HBM3", "h100"),
        ("H100 SXM5 80 GB", "h100"),
        (" cpu ", "cpu"),
    ],
)
def test_spellings_of_slurm_and_drivers(spelling, name):
    assert gpu(spelling).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("AMD Instinct MI300X", "AMD makes it"),
        ("mi250", "AMD makes it"),
        ("gaudi3", "Intel makes it"),
        ("Aqua Vanjaram [Instinct MI300X]", "AMD makes it"),
        ("Advanced Micro Devices, Inc. [AMD/ATI] Navi 31", "AMD makes it"),
        ("gfx942", "AMD makes it"),
        ("Intel(R) Data Center GPU Max 1550", "Intel makes it"),
        ("Ascend910B", "Huawei makes it"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "not in the table of"),
        ("nvidia_h100_80gb_hbm3_1g.10gb", "only a part of a GPU"),
        ("a100_3g.20gb", "only a part of a GPU"),
        ("MIG 1g.5gb", "only a part of a GPU"),
        ("NVIDIA A40-48Q", "only a part of a GPU"),
        ("NVIDIA H20-3e", "not in the table"),
        ("NVIDIA H100 96GB", "not in the table"),
        ("NVIDIA GeForce RTX 4090 D", "not in the table"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "not in the table"),
        ("Tesla V100-SXM2-32GB", "not in the table"),
        ("NVIDIA A100-SXM-64GB", "not in the table"),
        ("NVIDIA GH200 144G HBM3e", "not in the table"),
        ("NVIDIA GeForce RTX 3090 Ti", "not in the table"),
        ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "only a part of a GPU"),
        ("Quadro RTX 6000", "not in the table"),
    ],
)
def test_no_gpu_is_taken_for_another(name, message):
    with pytest.raises(PlanError, match=message):
        gpu(name)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("H10O", "h100"),
        ("HGX H100", "h100"),
        ("gpu:h100:4", "h100"),
        ("NVIDIA H100 96GB", "h100"),
        ("H100 NVLink", "h100"),
        ("NVIDIA H100 PCIe 96GB", "h100-pcie"),
        ("NVIDIA A100-SXM-64GB", "a100-40gb"),
        ("NVIDIA-A100-SXM4-80GB-SHARED", "a100-80gb"),
        ("NVIDIA A100 80GB PCIe:8", "a100-80gb-pcie"),
        ("NVIDIA GeForce RTX 4090 48GB", "rtx-4090"),
        ("Tesla V100-PCIE-16GB", None),
        ("NVIDIA GeForce RTX 2080 Ti", None),
        ("NVIDIA GeForce RTX 3080", None),
        ("NVIDIA RTX A5000", None),
        ("NVIDIA GB300", None),
        ("NVIDIA A16", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)
def test_another_gpu_is_no_misspelling(name, near):
    with pytest.raises(UnknownHardware) as raised:
        gpu(name)
    assert raised.value.near == near


def test_t4_computes_in_float16():
    assert (gpu("t4").dtype, gpu("t4").dtype_bytes) == ("float16", 2)
    assert {found.dtype for found in GPUS.values()} == {"float16", "bfloat16", "float32"}
    assert gpu("cpu").dtype_bytes == 4


def test_overrides_replace_figures_and_say_so():
    mine = gpu("h100", {"bandwidth": 2e12, "link": "pcie5"})
    assert (mine.bandwidth, mine.link, mine.flops) == (2e12, "pcie5", 989.4e12)
    assert mine.source.endswith("bandwidth, link given")


def test_a_gpu_of_ones_own():
    mine = gpu("mi300x", {"memory": 192 * GIB, "flops": 1.3e15, "bandwidth": 5.3e12})
    assert (mine.name, mine.memory, mine.source) == ("mi300x", 192 * GIB, "given")


@pytest.mark.parametrize(
    ("name", "overrides", "message", "hint"),
    [
        ("h10", None, "GPU 'h10' is not in the table", "did you mean h100?"),
        ("xyz", None, "GPU 'xyz' is not in the table", "memory, flops and bandwidth"),
        ("h100", {"bandwith": 1e12}, "'bandwith' is no figure of a GPU", "did you mean bandwidth?"),
        ("h100", {"flops": 0}, "flops must be a positive number, not 0", "flops: 80e9"),
        ("h100", {"flops": "1e15"}, "flops must be a positive number, not '1e15'", "flops: 80e9"),
        ("h100", {"link": "token-ring"}, "link 'token-ring' is not in the table", "come nearest"),
    ],
)
def test_what_is_wrong_with_a_gpu(name, overrides, message, hint):
    with pytest.raises(PlanError) as raised:
        gpu(name, overrides)
    assert message in raised.value.message
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("spelling", "bytes_per_second"),
    [
        ("nvlink3", 300e9),
        ("NVLink4", 450e9),
        ("nvlink5", 900e9),
        ("pcie4", 31.5e9),
        ("pcie5", 63e9),
        ("ndr", 50e9),
        ("ib-hdr", 25e9),
        ("infiniband_ndr", 50e9),
        ("10gbe", 1.25e9),
        ("25 GbE", 3.125e9),
        ("100GbE", 12.5e9),
        ("200gbe", 25e9),
        ("ethernet-400", 50e9),
    ],
)
def test_links_in_bytes_per_second(spelling, bytes_per_second):
    assert link(spelling).bandwidth == bytes_per_second


def test_an_unknown_link():
    with pytest.raises(PlanError, match="did you mean nvlink4"):
        link("nvlnk4")
