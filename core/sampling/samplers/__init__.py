"""SAMPLERS: every sampler by the name that settings give it."""

from core.sampling.samplers.dpm_solver import dpm_adaptive, dpm_fast
from core.sampling.samplers.ode import dpm_2, dpmpp_2m, euler, heun, heunpp2, lms
from core.sampling.samplers.sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from core.sampling.samplers.step import Sampler, Step
from core.sampling.samplers.stochastic import (
    ddpm,
    dpm_2_ancestral,
    dpmpp_2s_ancestral,
    euler_ancestral,
    lcm,
    restart,
    tcd,
)
from core.sampling.samplers.unipc import uni_pc, uni_pc_bh2

__all__ = ["SAMPLERS", "Sampler", "Step"]

# Names that end in _gpu mean the same: where noise is drawn is a setting of its own.
SAMPLERS: dict[str, Sampler] = {
    "euler": euler,
    "euler_ancestral": euler_ancestral,
    "heun": heun,
    "heunpp2": heunpp2,
    "dpm_2": dpm_2,
    "dpm_2_ancestral": dpm_2_ancestral,
    "lms": lms,
    "dpm_fast": dpm_fast,
    "dpm_adaptive": dpm_adaptive,
    "dpmpp_2s_ancestral": dpmpp_2s_ancestral,
    "dpmpp_sde": dpmpp_sde,
    "dpmpp_sde_gpu": dpmpp_sde,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_2m_sde_gpu": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "dpmpp_3m_sde_gpu": dpmpp_3m_sde,
    "ddpm": ddpm,
    "lcm": lcm,
    "tcd": tcd,
    "restart": restart,
    "ddim": euler,
    "uni_pc": uni_pc,
    "uni_pc_bh2": uni_pc_bh2,
}
