# docker build -t deeplab_jax .                                           a CPU
# docker build -t deeplab_jax --build-arg EXTRA=cuda13 .                  NVIDIA GPUs: run it with --gpus=all
# docker run -v $PWD:/data deeplab_jax --config=own_data:/data/mine --workdir=/data/runs/mine
FROM python:3.12-slim
ARG EXTRA=""
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}" && rm -rf /src/*
WORKDIR /data
ENTRYPOINT ["deeplab-jax"]
