"""Package metadata; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="prefix_rft_rllib",
    version="0.1.0",
    description="Prefix-RFT for Ray RLlib: learn from demonstrations and verified attempts at once",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    # `prefix_rft_rllib/envs` is a symlink to the top-level folder `envs/`.
    packages=find_packages(include=["prefix_rft_rllib", "prefix_rft_rllib.*"]),
    package_data={
        "prefix_rft_rllib": ["py.typed"],
        "prefix_rft_rllib.envs": ["toy_base_model/*", "toy_code_base_model/*"],
    },
    install_requires=[
        "ray[rllib]>=2.58,<2.61",
        "torch>=2.11,<2.15",
        "transformers>=5.16.1,<5.25",
        "gymnasium>=1.2.2,<1.5",
        "math-verify>=0.9,<0.10",
        "mpmath>=1.3,<1.5",
        "tensorboard>=2.21,<3",
        "datasets>=4.8,<6",
        "jinja2>=3.1,<4",
        "numpy>=2,<3",
        "scipy>=1.15,<2",
        "tqdm>=4.66.3",
    ],
    extras_require={
        "test": [
            "pytest>=9,<10",
            "pytest-timeout>=2.4",
            "hypothesis>=6.170,<7",
            "stable-baselines3>=2.9,<3",
        ],
        "dev": ["ruff==0.17.5", "mypy==2.4.1"],
        "lora": ["peft>=0.19,<0.22"],
        "plot": ["matplotlib>=3.10,<4"],
        "real-model": ["gguf>=0.17,<1"],
        "lm-eval": ["lm-eval>=0.4.13,<0.5"],
        # vLLM for GPUs; without one see requirements-cpu.txt.
        "vllm": ["vllm==0.32.0"],
    },
)
