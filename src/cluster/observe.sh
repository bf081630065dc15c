# Looks at a node and changes nothing. One fact per line, `end` last. Read by bash, as root where that is possible.
# Arguments: BINARY CONFIGURATION RECORDS STATE, then four words for each service: NAME PORT METHOD-PATH BODY.
export LC_ALL=C.UTF-8
binary=$1 configuration=$2 records=$3 state=$4
shift 4

echo "clock_ms $(date +%s%3N)"
echo "arch $(uname -m)"
echo "libc $(getconf GNU_LIBC_VERSION 2>/dev/null || echo unknown)"
echo "os $(. /etc/os-release 2>/dev/null; echo "${PRETTY_NAME:-unknown}")"
echo "systemd $(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
folder=$state
while [ ! -d "$folder" ]; do folder=$(dirname "$folder"); done
echo "disk_free $(df -B1 --output=avail "$folder" 2>/dev/null | tail -n 1)"

# Asks a service on loopback; prints its status and its answer on one line, nothing if it does not answer.
ask() {
    local reply
    reply=$({
        exec 3<>"/dev/tcp/127.0.0.1/$2" || exit
        printf '%s HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
            "$3" "${#4}" "$4" >&3
        timeout 20 cat <&3
    } 2>/dev/null | head -c 65536 | tr '\000' ' ')
    [[ $reply == HTTP/1.?\ [0-9]* ]] || return
    echo "answer $1 ${reply:9:3} $(printf '%s' "${reply#*$'\r\n\r\n'}" | tr '\r\n' '  ')"
}
answers() {
    while [ $# -ge 4 ]; do
        ask "$1" "$2" "$3" "$4" &
        shift 4
    done
    wait
}
exec 4< <(answers "$@")

if command -v nvidia-smi >/dev/null; then
    timeout 30 nvidia-smi --query-gpu=driver_version,name,memory.total,memory.used,utilization.gpu --format=csv,noheader,nounits 2>/dev/null |
        sed 's/^/gpu /'
fi
if command -v docker >/dev/null; then
    echo "docker $(timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null)"
    timeout 10 docker images --format 'image {{.Repository}}:{{.Tag}}' 2>/dev/null | head -n 500
fi
if [ -f "$binary" ]; then
    echo "binary_sha256 $(sha256sum <"$binary" | cut -d' ' -f1)"
    echo "binary_version $(timeout 5 "$binary" version 2>/dev/null | head -n 1)"
fi
[ -f "$binary.old" ] && echo "binary_old_sha256 $(sha256sum <"$binary.old" | cut -d' ' -f1)"
for file in "$configuration"/* "$records"/*; do
    [ -f "$file" ] && echo "file $(sha256sum <"$file" | cut -d' ' -f1) $(basename "$(dirname "$file")")/$(basename "$file")"
done
cat <&4
echo end
