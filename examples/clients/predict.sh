#!/usr/bin/env bash
# Send frames to a running `pinglow serve` and print what is found, a line of JSON each.
#
#     examples/clients/predict.sh http://127.0.0.1:8080 frames/*.png
#
# A token is taken from PINGLOW_TOKEN. curl waits and tries again where the service is full (429)
# or is being started (503). The exit code is 1 if a frame was not answered.
set -u
if [ $# -lt 2 ]; then
  echo "usage: predict.sh ADDRESS FRAME..." >&2
  exit 2
fi
address=$1
shift
code=0
for frame in "$@"; do
  # The header comes from a file, so that the token is in no list of processes.
  curl --silent --show-error --fail-with-body --retry 5 --max-time 60 \
    --header @<(echo "${PINGLOW_TOKEN:+Authorization: Bearer $PINGLOW_TOKEN}") \
    --header 'Content-Type: application/octet-stream' --data-binary @"$frame" \
    --url-query "name=$(basename "$frame")" "$address/v1/predict" || code=1
  echo
done
exit $code
