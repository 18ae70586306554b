#!/bin/sh
# Installs the portal of this folder into an environment of its own: docs/deployment/install.sh /opt/airelays
# Needs Python 3.11 or newer with venv (PYTHON names another one), no compiler. Running it again upgrades.
set -eu
prefix=${1:?"usage: install.sh FOLDER"}
cd "$(dirname "$0")/../.."
"${PYTHON:-python3}" -m venv "$prefix"
"$prefix/bin/pip" install --quiet --require-hashes --only-binary :all: -r requirements.txt
"$prefix/bin/pip" install --quiet --no-deps --force-reinstall .
"$prefix/bin/airelays" --version
