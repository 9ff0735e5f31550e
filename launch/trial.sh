#!/usr/bin/env bash
# One trial over a list of hosts, without Slurm and without Ray:
#
#     launch/trial.sh host1,host2 my.yaml model.size=1B data.size=20B [key=value ...]
#     launch/trial.sh host1,host2 results/my/trials/<trial>/spec.yaml
#
# Every host needs this working folder, the same Python environment and `storage`, all on shared disks. A host is reached
# by `$REMOTE_SHELL host command`, which is ssh where it is not set; Python is $PYTHON, or what `python` means here.
# Ends every host's part when one fails or this script ends (Ctrl-C: a checkpoint is written first).
# Exit status: 0 with a result, 75 when asked to end (the same command continues), 2 for bad input.
set -uo pipefail

if [ $# -lt 2 ]; then
    echo "usage: launch/trial.sh HOST[,HOST ...] CONFIG [key=value ...] | SPEC" >&2
    exit 2
fi
IFS=, read -ra hosts <<<"$1"
shift
peers=("${hosts[@]#*@}")
shell=${REMOTE_SHELL:-ssh -o BatchMode=yes -o ServerAliveInterval=15}
python=${PYTHON:-$(command -v python)}

on() { # on HOST ARGUMENT...: run Python on a host, in this folder
    local host=$1
    shift
    # $shell is a command with its options; the remote command is one word of shell text, as ssh wants it.
    # shellcheck disable=SC2086
    exec $shell "$host" "cd ${PWD@Q} && exec ${python@Q} ${*@Q}"
}

folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
# Every host's part runs as long as this pipe is open: it is the standard input of all.
mkfifo "$folder/hold"
exec 9<>"$folder/hold" 8<"$folder/hold"
trap 'exec 9>&-' INT TERM HUP

spec=$(on "${hosts[0]}" -m amscale.planning.single_trial "${#hosts[@]}" "$@" </dev/null) || exit
[ -n "$spec" ] || exit 0 # it has its result
# The port is this trial's until the pipe closes.
exec 7< <(on "${hosts[0]}" -m amscale.cluster.network "${peers[@]}" <&8 8<&- 9>&-)
read -r head <&7 || exit 1
attempt="$(date +%s)-$$"
declare -A machine=()
for rank in "${!hosts[@]}"; do
    on "${hosts[rank]}" -m amscale.cluster.run_machine "$rank" "$head" "$attempt" "$spec" "${peers[@]}" <&8 8<&- 9>&- &
    machine[$!]=$rank
done
status=0
while [ "${#machine[@]}" -gt 0 ]; do
    for process in "${!machine[@]}"; do
        kill -0 "$process" 2>/dev/null && continue
        wait "$process"
        code=$?
        unset "machine[$process]"
        [ "$code" -eq 0 ] && continue
        exec 9>&-
        # A host ends with 75 once the ranks' checkpoint is whole; otherwise the first failure counts.
        if [ "$code" -eq 75 ] || [ "$status" -eq 0 ]; then status=$code; fi
    done
    sleep 0.2
done
exit "$status"
