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


JOINED = {
    "n21": ("StringConcatenate", {"string_a": ["22", 0], "string_b": "in the rain", "delimiter": ", "}),
    "n22": ("PrimitiveStringMultiline", {"value": "a fox"}),
}
WAS = {"text_a": ["22", 0], "text_b": "  by night ", "text_d": ["23", 0], "delimiter": ", ", "clean_whitespace": "true"}


def test_the_parts_of_joined_texts_are_followed():
    found = read({("6", "text"): ["21", 0]}, **JOINED)
    assert found.settings["prompt"] == "a fox, in the rain"
    assert found.unknown == {"strength_clip of second.safetensors": "1.0"}
    nodes = JOINED | {"n20": ("Text Concatenate", WAS), "n23": ("Reroute", {"": ["21", 0]})}
    found = read({("6", "text"): ["20", 0]}, **nodes)
    assert found.settings["prompt"] == "a fox, by night, a fox, in the rain"
    assert found.unknown == {"strength_clip of second.safetensors": "1.0"}


def test_a_join_keeps_empty_texts_where_comfyui_does_and_drops_them_where_the_was_suite_does():
    empty = {("6", "text"): ["21", 0]}
    core = {"string_a": "", "string_b": "a fox", "delimiter": ", "}
    assert read(empty, n21=("StringConcatenate", core)).settings["prompt"] == ", a fox"
    was = {"text_a": "", "text_b": "a fox", "text_c": " b", "delimiter": "\\n", "clean_whitespace": "false"}
    assert read(empty, n21=("Text Concatenate", was)).settings["prompt"] == "a fox b"


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        ("CLIPTextEncode", {"text": ["21", 0], "clip": ["12", 0]}),
        ("CLIPTextEncodeSDXL", {"text_g": ["21", 0], "text_l": "stars", "clip": ["12", 0]}),
        ("Encoder of an extension", {"words": "a fox", "clip": ["12", 0]}),
        ("CLIPTextEncode", {"text": ["22", 0], "clip": ["12", 0]}),
        ("CLIPTextEncode", {"text": ["23", 0], "clip": ["12", 0]}),
        ("CLIPTextEncode", {"text": ["99", 0], "clip": ["12", 0]}),
        ("Efficient Loader", {"ckpt_name": "x", "positive": ["21", 0], "negative": "", "clip": ["12", 0]}),
    ],
    ids=["unknown", "one of two", "other name", "part of a join", "replaced", "nowhere", "loader"],
)
def test_of_a_text_that_cannot_be_followed_nothing_is_said_and_its_node_is_listed(kind, inputs):
    found = read(
        {("3", "positive"): ["20", 0]},
        n20=(kind, inputs),
        n21=("Caption of an extension", {"image": ["24", 0], "length": 3}),
        n22=("StringConcatenate", {"string_a": "a fox", "string_b": ["21", 0], "delimiter": ", "}),
        n23=("StringReplace", {"string": "a fox", "find": "fox", "replace": "cat"}),
        n24=("LoadImage", {"image": "photo.png"}),
    )
    assert "prompt" not in found.settings
    assert kind in found.unknown
    assert found.settings["negative_prompt"] == "text, watermark"


def test_joins_of_joins_end_however_they_are_tied():
    def joins(number, after):
        return {f"n{i}": ("StringConcatenate", {"string_a": [after(i), 0], "string_b": [after(i), 0], "delimiter": "x"})
                for i in range(100, 100 + number)}  # fmt: skip

    for nodes in (
        joins(3, lambda i: str(100 + (i + 1) % 3)),
        joins(30, lambda i: str(i + 1)) | {"n130": ("PrimitiveString", {"value": "a"})},
        joins(4000, lambda i: str(i + 1)),
    ):
        found = read({("6", "text"): ["100", 0]}, **nodes)
        assert "prompt" not in found.settings and "CLIPTextEncode" in found.unknown
    nodes = joins(3, lambda i: str(i + 1)) | {"n103": ("PrimitiveString", {"value": "a"})}
    assert read({("6", "text"): ["100", 0]}, **nodes).settings["prompt"] == "axaxaxaxaxaxaxa"


def test_a_line_feed_in_a_text_is_a_blank_as_it_is_for_comfyui():
    """Here each line is a text of its own, encoded alone: the same words would make another picture."""
    found = read({("6", "text"): "a fox,\n  in the rain\n", ("7", "text"): "a\r\n\r\nb"})
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == ("a fox, in the rain", "a b")


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
    assert found.unknown["ControlNetApplyAdvanced"] == "strength: 0.8"
    assert found.unknown["ConditioningCombine"] == "not used"


@pytest.mark.parametrize(
    ("kind", "inputs", "summary"),
    [
        ("ConditioningSetArea", {"conditioning": ["6", 0], "width": 512, "strength": 1.0}, "width: 512, strength: 1.0"),
        ("ConditioningSetMask", {"conditioning": ["6", 0], "mask": ["22", 1], "strength": 0.5}, "strength: 0.5"),
        ("ConditioningSetTimestepRange", {"conditioning": ["6", 0], "start": 0.0, "end": 0.5}, "start: 0.0, end: 0.5"),
        ("ConditioningCombine", {"conditioning_1": ["6", 0], "conditioning_2": ["21", 0]}, "not used"),
        ("ConditioningAverage", {"conditioning_to": ["6", 0], "conditioning_from": ["21", 0], "conditioning_to_strength": 0.7},
         "conditioning_to_strength: 0.7"),
    ],
)  # fmt: skip
def test_what_is_done_to_a_text_beyond_encoding_it_is_listed(kind, inputs, summary):
    """Areas, masks, times, averages: the words are taken, what they had to do with each other is not."""
    found = read({("3", "positive"): ["20", 0]}, n20=(kind, inputs), n21=("CLIPTextEncode", {"text": "a dog"}))
    assert found.settings["prompt"].split("\n")[0] == "a lighthouse"
    assert found.unknown[kind] == summary
    assert "CLIPTextEncode" not in found.unknown


def test_nodes_of_one_kind_are_listed_each():
    found = read(
        {("3", "positive"): ["20", 0]},
        n20=("ConditioningCombine", {"conditioning_1": ["21", 0], "conditioning_2": ["22", 0]}),
        n21=("ConditioningSetArea", {"conditioning": ["6", 0], "x": 0}),
        n22=("ConditioningSetArea", {"conditioning": ["23", 0], "x": 512}),
        n23=("CLIPTextEncode", {"text": "a dog"}),
    )
    assert found.settings["prompt"] == "a lighthouse\na dog"
    assert (found.unknown["ConditioningSetArea"], found.unknown["ConditioningSetArea (22)"]) == ("x: 0", "x: 512")


def test_concatenated_texts_are_lines_and_understood():
    """In their order, whatever the order of the inputs."""
    found = read(
        {("3", "positive"): ["20", 0]},
        n20=("Reroute", {"": ["21", 0]}),
        n21=("ConditioningConcat", {"conditioning_from": ["22", 0], "conditioning_to": ["6", 0]}),
        n22=("CLIPTextEncode", {"text": "a dog,\nrunning"}),
    )
    assert found.settings["prompt"] == "a lighthouse\na dog, running"
    assert found.unknown == {"strength_clip of second.safetensors": "1.0"}


def test_where_a_model_goes_through_too_the_number_of_an_output_does_not_tell_the_side():
    found = read(
        {("3", "model"): ["20", 0], ("3", "positive"): ["20", 1], ("3", "negative"): ["20", 2]},
        n20=("ApplyInstantID", {"model": ["11", 0], "positive": ["6", 0], "negative": ["7", 0], "weight": 0.8}),
    )
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == ("a lighthouse", "text, watermark")
    assert found.unknown["ApplyInstantID"] == "weight: 0.8"


def test_an_empty_negative_is_told_from_none():
    assert read({("7", "text"): ""}).settings["negative_prompt"] == ""
    assert "negative_prompt" not in read({("3", "negative"): ["99", 0]}).settings
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


LORAS = [("a.safetensors", 0.4), ("b.safetensors", 0.5)]
STACKER = {
    "input_mode": "advanced", "lora_count": 2, "lora_name_1": "a.safetensors", "lora_wt_1": 1.0, "model_str_1": 0.4, "clip_str_1": 0.4,
    "lora_name_2": "b.safetensors", "lora_wt_2": 1.0, "model_str_2": 0.5, "clip_str_2": 0.6, "lora_name_3": "c.safetensors",
    "lora_wt_3": 1.0, "model_str_3": 1.0, "clip_str_3": 1.0,
}  # fmt: skip


def test_a_stack_of_loras_beside_a_loader_is_read():
    found = read_settings_text(json.dumps(efficient(lora_stack=["5", 0]) | {"5": node("LoRA Stacker", STACKER)}))
    assert named(found, "loras") == [*LORAS, ("y.safetensors", 0.9)]
    assert found.unknown == {"strength_clip of b.safetensors": "0.6"}


def test_a_simple_stack_has_one_weight_each():
    stacker = STACKER | {"input_mode": "simple", "lora_wt_1": 0.4, "lora_wt_2": 0.5, "model_str_1": 1.0}
    found = read_settings_text(json.dumps(efficient(lora_stack=["5", 0]) | {"5": node("LoRA Stacker", stacker)}))
    assert named(found, "loras") == [*LORAS, ("y.safetensors", 0.9)]
    assert found.unknown == {}


def test_stacks_that_a_node_between_applies_are_read_in_their_order():
    found = read(
        {("3", "model"): ["20", 0]},
        n20=("CR Apply LoRA Stack", {"lora_stack": ["21", 0], "model": ["10", 0], "clip": ["4", 1]}),
        n21=(
            "CR LoRA Stack",
            {
                "switch_1": "On", "lora_name_1": "a.safetensors", "model_weight_1": 0.4, "clip_weight_1": 0.4,
                "switch_2": "Off", "lora_name_2": "off.safetensors", "model_weight_2": 1.0, "clip_weight_2": 0.0,
                "switch_3": "On", "lora_name_3": "None", "model_weight_3": 1.0, "clip_weight_3": 0.0, "lora_stack": ["22", 0],
            },
        ),
        n22=("LoRA Stacker", {"input_mode": "simple", "lora_count": 1, "lora_name_1": "b.safetensors", "lora_wt_1": 0.5}),
    )  # fmt: skip
    assert [(one.name, one.weight, one.enabled) for one in found.named if one.field == "loras"] == [
        ("first.safetensors", 0.8, True), ("b.safetensors", 0.5, True), ("a.safetensors", 0.4, True),
        ("off.safetensors", 1.0, False),
    ]  # fmt: skip
    assert named(found, "base_model")[0][0].endswith("sd_xl_base_1.0.safetensors")
    assert found.unknown.keys() == {"LoraLoader"}  # the one that only the text encoders go through


def node(kind, inputs):
    return {"class_type": kind, "inputs": inputs}


def efficient(**changes):
    """A graph of the Efficiency nodes, with other inputs of its loader."""
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
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 5]}},
    }  # fmt: skip
    graph["1"]["inputs"] |= changes
    return graph


def test_nodes_that_do_all_at_once_are_read_by_their_inputs():
    found = read_settings_text(json.dumps(efficient()))
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == ("a barn", "snow")
    assert (found.settings["clip_skip"], found.unknown) == (2, {})
    assert (found.settings["width"], found.settings["height"], found.settings["steps"]) == (640, 768, 12)
    assert named(found, "base_model") == [("x.safetensors", 1.0)]
    assert named(found, "loras") == [("y.safetensors", 0.9)]


def test_linked_texts_of_a_loader_keep_their_sides():
    """Its outputs have other numbers than those of nodes that conditionings go through."""
    graph = efficient(positive=["4", 0], negative=["5", 0])
    graph |= {"4": node("Text Multiline", {"text": "a nice cat"}), "5": node("PrimitiveString", {"value": "ugly"})}
    found = read_settings_text(json.dumps(graph))
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == ("a nice cat", "ugly")
    assert found.unknown == {}
    graph["5"] = node("PrimitiveString", {"value": ""})
    assert read_settings_text(json.dumps(graph)).settings["negative_prompt"] == ""


def test_a_clip_skip_of_a_loader_that_is_none_is_listed():
    found = read_settings_text(json.dumps(efficient(clip_skip=-24)))
    assert "clip_skip" not in found.settings
    assert found.unknown == {"clip_skip": "24"}


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
    assert "prompt" not in read({("3", "positive"): ["100", 0]}, **row).settings
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
