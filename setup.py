"""Packaging of beam_batch. Tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="beam-batch",
    version="0.1.0",
    description="Run one LLM workflow over every row of a dataset, on Apache Beam.",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["beam_batch", "beam_batch.*"]),
    package_data={
        "beam_batch": ["py.typed", "yaml_provider.yaml"],
        "beam_batch.providers": ["*.jinja"],
    },
    entry_points={"console_scripts": ["beam-batch=beam_batch.cli.main:main"]},
    install_requires=[
        "apache-beam>=2.77,<2.78",
        "aiohttp>=3.12,<4",
        "fsspec>=2025.3",
        "genai-prices>=0.2.3,<0.3",
        "httptools>=0.7,<1",
        "jsonschema-rs>=0.60,<0.70",
        "numpy>=1.26",
        "orjson>=3.10,<4",
        "pyarrow>=18,<26",
        "rich>=14,<16",
        "rich-click>=1.9,<2",
        "tenacity>=9,<10",
        # older ones close descriptors that are not theirs (uvloop #738)
        "uvloop>=0.23,<0.30",
        "websockets>=15,<18",
    ],
    extras_require={
        "agents": ["mcp>=2.3,<3", "PyYAML>=6", "pydantic>=2.11,<3"],
        "az": ["adlfs>=2025.8"],
        "dask": ["dask>=2024.4.2", "distributed>=2024.4.2"],
        "estimate": ["quicktok-v1>=0.4,<0.5; python_version < '3.14'"],
        "gs": ["gcsfs>=2025.3"],
        "hub": ["huggingface_hub>=1"],
        "images": ["puremagic>=1.30,<3"],
        "local": ["xllamacpp>=2026.10", "huggingface_hub>=1"],
        "pydantic": ["pydantic>=2.11,<3"],
        "s3": ["s3fs>=2025.3", "aiobotocore>=3"],
        "sql": ["duckdb>=1.4,<3"],
        "yaml": ["apache-beam[yaml]>=2.77,<2.78"],
        "test": [
            "dask>=2024.4.2",
            "distributed>=2024.4.2",
            "duckdb>=1.4,<3",
            "huggingface_hub>=1",
            "jinja2>=3,<3.2",
            "hypothesis>=6.150",
            # the boto3 that s3fs can use; else pip tries all others first
            "aiobotocore>=3.8,<4",
            # of apache-beam[yaml] what its tests need
            "docstring-parser>=0.15,<1",
            "pandas>=2.2,<2.4",
            "mcp-server-time>=2026.10,<2027",
            "mcp>=2.3,<3",
            "moto[server]>=5.1,<6",
            "openai[aiohttp]>=3.50,<4",
            "puremagic>=1.30,<3",
            "pydantic>=2.11,<3",
            "PyYAML>=6",
            "pytest>=9,<10",
            "pytest-xdist>=3.8,<4",
            "quicktok-v1>=0.4,<0.5; python_version < '3.14'",
            "s3fs>=2025.3",
            "trustme>=1.2,<2",
        ],
        "dev": ["mypy>=1.18", "ruff>=0.14", "types-PyYAML>=6"],
    },
)
