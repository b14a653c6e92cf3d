"""`make gpu`: its stages at their smallest size on a CPU; one that fails stops no other."""

from __future__ import annotations

import os

import gpu
import gpu_stages
import pytest

from fusionreid.files import read_json


@pytest.mark.slow
def test_stages_resume_and_a_failing_one_stops_no_other(tmp_path, capfd):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "synthetic").write_text("a file where rendering wants a folder")
    roots = ["--data-root", str(tmp_path / "data"), "--runs-root", str(tmp_path)]
    arguments = ["--smallest", "--device", "cpu", *roots, "--only", "render", "ranking", "kernels"]
    assert gpu.main(arguments) == 1
    assert "gpu: failed: render" in capfd.readouterr().err
    folder = tmp_path / "gpu-smallest"
    made = sorted(path.name for path in folder.iterdir())
    stages = [name.split("_")[1] for name in made]
    assert stages == ["kernels", "kernels", "ranking", "ranking", "report"]
    text = (folder / made[-1]).read_text()
    assert "| render | failed: " in text and "| table2 | not run |" in text
    assert "## ranking" in text and "Most of the time goes to" in text and "## render" not in text

    before = {path: os.stat(path).st_mtime_ns for path in folder.glob("*.csv")}
    # What is there is kept, and what is not is not begun.
    assert gpu.main([*arguments, "--minutes", "0"]) == 1
    said = capfd.readouterr()
    assert "ranking: is there" in said.out and "not begun, the time is up: render" in said.err
    assert {path: os.stat(path).st_mtime_ns for path in folder.glob("*.csv")} == before


def test_other_settings_are_made_anew(tmp_path):
    where = gpu.Where("cpu", "a card", tmp_path, tmp_path, tmp_path)
    chosen = gpu.settings(True, "random")["ranking"]
    assert gpu.done("ranking", where, chosen) is None
    assert gpu.run_stage("ranking", where, chosen) == ""
    assert gpu.done("ranking", where, chosen) == read_json(tmp_path / "gpu_ranking_a-card.json")
    assert gpu.done("ranking", where, chosen | {"widths": [16]}) is None


def test_every_stage_has_settings_of_both_sizes():
    full, smallest = gpu.settings(False, "imagenet"), gpu.settings(True, "imagenet")
    assert list(full) == list(smallest) == list(gpu.WORK)
    assert all(set(full[stage]) == set(smallest[stage]) for stage in full)
    assert len(full["table2"]["seeds"]) * len(full["table2"]["data_seeds"]) == 16


@pytest.mark.parametrize(
    ("kernel", "kind"),
    {
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_cublas": "matrix products",
        "nvjet_hsh_128x256_64x4_1x2_h_bz_coopA_NNT": "matrix products",
        "sm80_xmma_wgrad_implicit_gemm_indexed_bf16_nhwckrsc_nhwc": "convolutions",
        "cutlass__5x_cudnn::Kernel<cutlass_tensorop_bf16_s16816fprop_optimized>": "convolutions",
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits>": "attention",
        "fmha_cutlassF_bf16_aligned_64x64_rf_sm80": "attention",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel": "normalisation",
        "void cudnn::bn_fw_tr_1C11_kernel_NCHW": "normalisation",
        "void at::native::(anonymous namespace)::multi_tensor_apply_kernel": "optimiser",
        "void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>": "copies and casts",
        "Memcpy DtoD (Device -> Device)": "copies and casts",
        "vectorized_elementwise_kernel<4, GeluCUDAKernelImpl>": "elementwise and reductions",
        "aten::addmm": "matrix products",
        "aten::_foreach_add_": "optimiser",
    }.items(),
)
def test_kernels_are_told_apart(kernel, kind):
    assert gpu_stages.kind(kernel) == kind


def test_the_published_peak_is_of_the_card():
    assert 2 * gpu_stages.peak("NVIDIA H100 80GB HBM3", "bf16") == 989e12
    assert 2 * gpu_stages.peak("NVIDIA H100 PCIe", "fp16") == 756e12
    for name, precision in (("NVIDIA H200", "float32"), ("NVIDIA GeForce RTX 4090", "bf16")):
        assert gpu_stages.peak(name, precision) != gpu_stages.peak(name, precision)  # NaN: unknown
