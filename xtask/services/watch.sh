# Waits until process $1 is gone, then kills the servers that were started from this folder.
while kill -0 "$1" 2>/dev/null; do
    sleep 1
done
for server in */; do
    pid=$(cat "$server/pid" 2>/dev/null) || continue
    if [ -r "/proc/$pid/stat" ]; then
        started=$(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 20)
    else
        started=$(ps -o lstart= -p "$pid")
    fi
    # A pid alone may be another's by now.
    if [ "$started" = "$(cat "$server/started")" ]; then
        kill -9 "$pid"
    fi
done
