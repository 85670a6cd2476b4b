"""`python -m asr`, for torchrun, which starts modules."""

from asr.cli import main

main()
