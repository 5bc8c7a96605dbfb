#!/usr/bin/env bash
# Gradescope runs this once, when it builds the image. The wheel is the one that you put beside this
# file: pip wheel --no-deps --wheel-dir lessons/teachers/gradescope .
set -e
apt-get update
apt-get install -y python3 python3-venv
python3 -m venv /autograder/venv
/autograder/venv/bin/pip install /autograder/source/minires-*.whl
