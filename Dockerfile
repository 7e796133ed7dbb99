# docker build -t genbench .          runs on a CPU, and with `docker run --gpus all` on NVIDIA's GPUs
# --build-arg INDEX=ADDRESS           another package index for torch: that of CPU wheels makes a small image
FROM python:3.12-slim
ARG INDEX=
WORKDIR /genbench
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt ${INDEX:+--extra-index-url $INDEX} '.[report,search]'
WORKDIR /work
ENV GENBENCH_CACHE=/work/.cache
ENTRYPOINT ["genbench"]
