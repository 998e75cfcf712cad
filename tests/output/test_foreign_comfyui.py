"""ComfyUI's graphs: walked from the saved picture back to what made it, whatever nodes stand between."""

import copy
import json

import pytest
from foreign_samples import COMFYUI, COMFYUI_DRAWN, COMFYUI_GRAPH, png, with_exif

from core.errors import BadMetadata
from core.output.metadata import read_settings, read_settings_text
from core.output.reading import Named


def read(changes=None, **nodes):
    """The sample with nodes added (`n20=...` is node 20) and inputs changed by (node, input)."""
    graph = copy.deepcopy(COMFYUI_GRAPH)
    graph |= {at.removeprefix("n"): {"class_type": kind, "inputs": inputs} for at, (kind, inputs) in nodes.items()}
    for (at, name), value in (changes or {}).items():
        graph[at]["inputs"][name] = value
    return read_settings_text(json.dumps(graph))


def named(read, field):
    return [(one.name, one.weight) for one in read.named if one.field == field]


def test_the_plain_graph_fills_every_setting():
    found = read_settings_text(COMFYUI)
    assert found.source == "comfyui"
    assert found.settings == {
        "prompt": "a lighthouse", "negative_prompt": "text, watermark", "seed": 156680208700286, "steps": 20,
        "guidance_scale": 8.0, "sampler": "dpmpp_2m", "scheduler": "karras", "width": 1024, "height": 1280, "clip_skip": 2,
    }  # fmt: skip
    assert found.named == (
        Named(field="base_model", name="sdxl\\sd_xl_base_1.0.safetensors"),
        Named(field="loras", name="first.safetensors", weight=0.8),  # the one next to the checkpoint comes first
        Named(field="loras", name="second.safetensors", weight=-0.5),
        Named(field="vae", name="sdxl_vae.safetensors"),
    )
    assert found.unknown == {"strength_clip of second.safetensors": "1.0"}


def test_the_drawn_graph_alone_is_enough():
    found = read_settings_text(COMFYUI_DRAWN)
    assert found.settings == {
        "prompt": "a lighthouse", "negative_prompt": "text, watermark", "seed": 156680208700286, "steps": 20,
        "guidance_scale": 8.0, "sampler": "euler", "scheduler": "normal", "width": 1024, "height": 768, "vae": "",
    }  # fmt: skip
    assert found.named == (Named(field="base_model", name="sd_xl_base_1.0.safetensors"),)  # the LoRA was passed by
    assert found.unknown == {}


def test_a_drawn_graph_of_newer_pages_names_its_widgets():
    graph = json.loads(COMFYUI_DRAWN)
    sampler = graph["nodes"][0]
    sampler["type"] = "KSampler (Improved)"
    names = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
    sampler["inputs"] += [{"name": name, "type": "INT", "widget": {"name": name}, "link": None} for name in names]
    found = read_settings_text(json.dumps(graph))
    assert (found.settings["seed"], found.settings["steps"], found.settings["sampler"]) == (
        156680208700286,
        20,
        "euler",
    )


def test_an_advanced_sampler_with_a_refiner_gives_the_switch():
    found = read(
        {("8", "samples"): ["21", 0], ("5", "width"): 832, ("3", "add_noise"): "enable"},
        n20=("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_refiner_1.0.safetensors"}),
        n22=("CLIPTextEncodeSDXLRefiner", {"text": "a lighthouse", "clip": ["20", 1]}),
        n21=(
            "KSamplerAdvanced",
            {
                "add_noise": "disable", "noise_seed": 0, "steps": 20, "cfg": 8.0, "sampler_name": "dpmpp_2m", "scheduler": "karras",
                "start_at_step": 15, "end_at_step": 10000, "model": ["20", 0], "positive": ["22", 0], "negative": ["22", 0],
                "latent_image": ["3", 0],
            },
        ),
    )  # fmt: skip
    assert found.settings["refiner_switch"] == 0.75
    assert named(found, "refiner_model") == [("sd_xl_refiner_1.0.safetensors", 1.0)]
    assert (found.settings["seed"], found.settings["width"]) == (156680208700286, 832)
    assert named(found, "base_model")[0][0].endswith("sd_xl_base_1.0.safetensors")


def test_of_two_samplers_in_a_row_the_first_counts_and_the_other_is_listed():
    found = read(
        {("8", "samples"): ["21", 0]},
        n20=("LatentUpscaleBy", {"samples": ["3", 0], "scale_by": 1.5, "upscale_method": "nearest-exact"}),
        n21=(
            "KSampler",
            {
                "seed": 99, "steps": 10, "cfg": 4, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.5,
                "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["20", 0],
            },
        ),
    )  # fmt: skip
    assert (found.settings["seed"], found.settings["steps"], found.settings["height"]) == (156680208700286, 20, 1280)
    assert found.unknown["later KSampler"].startswith("seed: 99, steps: 10")
    assert found.unknown["LatentUpscaleBy"] == "scale_by: 1.5, upscale_method: nearest-exact"


def test_a_custom_sampler_takes_its_parts_from_other_nodes():
    found = read(
        {("8", "samples"): ["20", 0]},
        n20=(
            "SamplerCustomAdvanced",
            {
                "noise": ["21", 0],
                "guider": ["22", 0],
                "sampler": ["23", 0],
                "sigmas": ["24", 0],
                "latent_image": ["5", 0],
            },
        ),
        n21=("RandomNoise", {"noise_seed": 2**62}),
        n22=("CFGGuider", {"cfg": 3.5, "model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0]}),
        n23=("SamplerDPMPP_2M_SDE", {"solver_type": "midpoint", "eta": 1, "s_noise": 1, "noise_device": "gpu"}),
        n24=("KarrasScheduler", {"steps": 33, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7}),
    )
    assert found.settings == {
        "prompt": "a lighthouse", "negative_prompt": "text, watermark", "seed": 2**62, "steps": 33, "guidance_scale": 3.5,
        "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "width": 1024, "height": 1280, "clip_skip": 2,
    }  # fmt: skip
    assert len(named(found, "loras")) == 2


def test_basic_nodes_for_sampler_and_schedule_are_read():
    found = read(
        {("8", "samples"): ["20", 0]},
        n20=(
            "SamplerCustom",
            {
                "add_noise": True, "noise_seed": 5, "cfg": 2.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0],
                "sampler": ["21", 0], "sigmas": ["22", 0], "latent_image": ["5", 0],
            },
        ),
        n21=("KSamplerSelect", {"sampler_name": "lcm"}),
        n22=("BasicScheduler", {"scheduler": "sgm_uniform", "steps": 4, "denoise": 0.9, "model": ["4", 0]}),
    )  # fmt: skip
    assert [found.settings[name] for name in ("seed", "steps", "sampler", "scheduler", "guidance_scale")] == [
        5,
        4,
        "lcm",
        "sgm_uniform",
        2.0,
    ]
    assert found.unknown["denoise"] == "0.9"


def test_values_are_followed_through_primitives_reroutes_and_joined_texts():
    found = read(
        {("3", "seed"): ["20", 0], ("6", "text"): ["21", 0], ("5", "width"): ["22", 0], ("3", "model"): ["23", 0]},
        n20=("Seed (rgthree)", {"seed": 424242}),
        n21=("StringConcatenate", {"string_a": "a red", "string_b": "barn", "delimiter": " "}),
        n22=("PrimitiveInt", {"value": 896}),
        n23=("Reroute", {"": ["11", 0]}),
    )
    assert (found.settings["seed"], found.settings["prompt"], found.settings["width"]) == (424242, "a red barn", 896)


def test_prompts_are_found_behind_nodes_that_change_conditions():
    found = read(
        {("3", "positive"): ["20", 0], ("3", "negative"): ["20", 1]},
        n20=(
            "ControlNetApplyAdvanced",
            {"positive": ["21", 0], "negative": ["7", 0], "control_net": ["22", 0], "strength": 0.8},
        ),
        n21=("ConditioningCombine", {"conditioning_1": ["6", 0], "conditioning_2": ["23", 0]}),
        n22=("ControlNetLoader", {"control_net_name": "canny.safetensors"}),
        n23=(
            "CLIPTextEncodeSDXL",
            {"text_g": "at night", "text_l": "stars", "width": 1024, "height": 1024, "clip": ["12", 0]},
        ),
    )
    assert found.settings["prompt"] == "a lighthouse\nat night"
    assert found.settings["negative_prompt"] == "text, watermark"
    assert found.unknown["text_l"] == "stars"
    assert found.unknown["ControlNetLoader"] == "control_net_name: canny.safetensors"


def test_an_empty_negative_is_told_from_none():
    assert (
        read({("3", "negative"): ["20", 0]}, n20=("ConditioningZeroOut", {"conditioning": ["6", 0]})).settings[
            "negative_prompt"
        ]
        == ""
    )


def test_what_changes_the_model_is_read():
    found = read(
        {("3", "model"): ["20", 0]},
        n20=("FreeU_V2", {"model": ["21", 0], "b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
        n21=("RescaleCFG", {"model": ["22", 0], "multiplier": 0.7}),
        n22=("ModelSamplingDiscrete", {"model": ["11", 0], "sampling": "v_prediction", "zsnr": True}),
    )
    assert [found.settings[f"freeu_{name}"] for name in ("b1", "b2", "s1", "s2")] == [1.3, 1.4, 0.9, 0.2]
    assert (found.settings["freeu"], found.settings["guidance_rescale"]) == (True, 0.7)
    assert (found.settings["prediction"], found.settings["zero_terminal_snr"]) == ("v", "on")


def test_stacks_of_loras_of_extensions_are_read():
    found = read(
        {("3", "model"): ["20", 0]},
        n20=(
            "Power Lora Loader (rgthree)",
            {
                "model": ["21", 0], "lora_1": {"on": True, "lora": "a.safetensors", "strength": 0.3},
                "lora_2": {"on": False, "lora": "b.safetensors", "strength": 1}, "PowerLoraLoaderHeaderWidget": {"type": "x"},
            },
        ),
        n21=("LoRA Stacker", {"model": ["4", 0], "lora_name_1": "c.safetensors", "lora_wt_1": 0.4, "lora_name_2": "None", "lora_wt_2": 1}),
    )  # fmt: skip
    assert [(one.name, one.weight, one.enabled) for one in found.named if one.field == "loras"] == [
        ("c.safetensors", 0.4, True), ("a.safetensors", 0.3, True), ("b.safetensors", 1.0, False),
    ]  # fmt: skip


def test_nodes_that_do_all_at_once_are_read_by_their_inputs():
    graph = {
        "1": {
            "class_type": "Efficient Loader",
            "inputs": {
                "ckpt_name": "x.safetensors", "vae_name": "Baked VAE", "clip_skip": -2, "lora_name": "y.safetensors",
                "lora_model_strength": 0.9, "positive": "a barn", "negative": "snow", "empty_latent_width": 640, "empty_latent_height": 768,
            },
        },
        "2": {
            "class_type": "KSampler (Efficient)",
            "inputs": {
                "seed": 3, "steps": 12, "cfg": 6, "sampler_name": "euler_ancestral", "scheduler": "simple", "denoise": 1,
                "model": ["1", 0], "positive": ["1", 1], "negative": ["1", 2], "latent_image": ["1", 3], "optional_vae": ["1", 4],
            },
        },
        "3": {"class_type": "Image Save", "inputs": {"images": ["2", 5]}},
    }  # fmt: skip
    found = read_settings_text(json.dumps(graph))
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == ("a barn", "snow")
    assert (found.settings["width"], found.settings["height"], found.settings["steps"]) == (640, 768, 12)
    assert named(found, "base_model") == [("x.safetensors", 1.0)]
    assert named(found, "loras") == [("y.safetensors", 0.9)]


def test_a_sampler_that_starts_from_a_picture_is_read_without_a_size():
    found = read(
        {("3", "latent_image"): ["20", 0], ("3", "denoise"): 0.6},
        n20=("VAEEncode", {"pixels": ["21", 0], "vae": ["4", 2]}),
        n21=("LoadImage", {"image": "photo.png"}),
    )
    assert "width" not in found.settings
    assert found.unknown["denoise"] == "0.6"
    assert found.unknown["LoadImage"] == "image: photo.png"


def test_what_this_program_lacks_is_listed():
    found = read(
        {
            ("3", "sampler_name"): "res_multistep",
            ("3", "scheduler"): "beta57",
            ("3", "seed"): 2**64 - 1,
            ("5", "width"): 1001,
        }
    )
    assert found.settings.keys() & {"sampler", "scheduler", "seed", "width"} == set()
    assert found.unknown == {
        "sampler_name": "res_multistep", "scheduler": "beta57", "seed": str(2**64 - 1), "size": "1001 x 1280",
        "strength_clip of second.safetensors": "1.0",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {("3", "model"): ["3", 0], ("3", "latent_image"): ["3", 0], ("6", "clip"): ["6", 0]},
        {("3", "positive"): ["3", 0], ("3", "negative"): ["9", 0], ("3", "seed"): ["3", 0]},
        {("10", "model"): ["11", 0], ("8", "vae"): ["8", 0], ("5", "width"): ["5", 0]},
        {("3", "model"): ["99", 0], ("3", "positive"): ["99", -7], ("8", "samples"): ["3", 10**30]},
        {("6", "text"): ["7", 0], ("7", "text"): ["6", 0]},
    ],
)
def test_circles_and_links_to_nowhere_end(changes):
    assert read(changes).settings["steps"] == 20


def test_a_thousand_nodes_in_a_row_and_a_thousand_in_each_others_arms_end():
    row = {f"n{100 + i}": ("ConditioningSetArea", {"conditioning": [str(101 + i), 0]}) for i in range(1000)}
    assert read({("3", "positive"): ["100", 0]}, **row).settings["prompt"] == ""
    both = {
        f"n{100 + i}": (
            "ConditioningCombine",
            {"conditioning_1": [str(101 + i), 0], "conditioning_2": [str(101 + i), 1]},
        )
        for i in range(900)
    }
    assert read({("3", "positive"): ["100", 0]}, **both).settings["steps"] == 20


@pytest.mark.parametrize(
    "graph",
    [
        {"1": {"class_type": "SaveImage", "inputs": {}}}, {"1": {"class_type": "KSampler", "inputs": []}}, {"1": {"class_type": 3}, "2": None},
        {"nodes": [], "links": []}, {"nodes": [1, None, {"type": "KSampler"}], "links": [1, [1], {"id": {}}, [[], [], []]]},
        {"prompt": {"1": {"class_type": "X", "inputs": {"a": ["1", 0]}}}},
        {"nodes": [{"id": [], "type": "KSampler", "inputs": 3, "widgets_values": 7, "mode": {}}], "links": []},
    ],
)  # fmt: skip
def test_graphs_without_a_sampler_are_no_metadata(graph):
    with pytest.raises(BadMetadata):
        read_settings_text(json.dumps(graph))


@pytest.mark.parametrize(
    "source",
    [
        png({"prompt": COMFYUI, "workflow": COMFYUI_DRAWN}),
        png({"workflow": COMFYUI_DRAWN}),
        png({"prompt": "{", "workflow": COMFYUI_DRAWN}),
        with_exif({0x010F: f"workflow:{COMFYUI_DRAWN}", 0x0110: f"prompt:{COMFYUI}"}, "webp"),
        with_exif({0x010F: f"Prompt:{COMFYUI}"}, "jpeg"),
    ],
    ids=["png", "png drawn", "png damaged", "webp", "jpeg"],
)
def test_it_is_found_where_comfyui_stores_it(source):
    found = read_settings(source)
    assert (found.source, found.settings["prompt"]) == ("comfyui", "a lighthouse")


def test_a_request_to_the_api_can_be_pasted():
    assert read_settings_text(json.dumps({"prompt": COMFYUI_GRAPH, "client_id": "x"})).settings["steps"] == 20


def test_numbers_that_are_none_are_listed():
    text = (
        COMFYUI.replace('"cfg": 8.0', '"cfg": NaN')
        .replace('"steps": 20', '"steps": 1e999')
        .replace('"strength_model": 0.8', '"strength_model": -Infinity')
    )
    found = read_settings_text(text)
    assert found.unknown["cfg"] == "nan" and found.unknown["steps"] == "inf"
    assert named(found, "loras") == [("second.safetensors", -0.5)]
