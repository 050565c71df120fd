#!/bin/sh
# usage: docker/lock.sh   writes docker/build.lock and docker/packages.lock from constraints.txt
# needs: uv. Reads the public index, whatever index this machine is set to.
set -eu
cd "$(dirname "$0")/.."
lock() {
  "${UV:-uv}" --no-config pip compile --quiet --generate-hashes --no-annotate \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
    --custom-compile-command "make lock" "$@"
}
lock pyproject.toml -c constraints.txt -o docker/packages.lock
printf 'pip==26.3\n%s\n' "$(grep -o '^setuptools==[^ ]*' docker/packages.lock)" |
  lock - -o docker/build.lock
