"""Selective state spaces: information along a sequence, at a cost linear in its length.

reference.py   the recurrence itself, and a glossary from the paper's symbols to the names here
duality.py     `ssd_scan`: one decay a head, as matrix products; what `MambaBlock` uses
fused/         the same by Triton kernels, and a block's convolution with it, for GPUs
channels.py    `selective_scan`: a decay for every channel and state component
block.py       `MambaBlock`: whole sequences, segments, or single steps
"""

from cellular.ssm.block import MambaBlock, MambaState
from cellular.ssm.channels import selective_scan
from cellular.ssm.duality import ssd_scan
from cellular.ssm.reference import selective_scan_ref, ssd_scan_ref

__all__ = ["MambaBlock", "MambaState", "selective_scan", "selective_scan_ref", "ssd_scan", "ssd_scan_ref"]
