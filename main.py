"""The command line: flags -> config -> one mode; deeplab_jax/apps/command.py has it.

    python main.py --config=configs/quickstart.py --workdir=DIR [--mode=MODE] [--config.model.output_stride=8 ...]

`deeplab-jax` of an installed package and `python -m deeplab_jax` are the same command.
"""

from deeplab_jax.__main__ import start

if __name__ == "__main__":
    start()
