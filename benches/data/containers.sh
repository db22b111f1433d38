#!/bin/sh
# Starts what the recorded run observed: 100 containers of ten made-up Compose projects, ten services each, all busybox.
#
# Usage: containers.sh IMAGE, with DOCKER_HOST set and a network `stack` of 10.78.0.0/16 on that engine. IMAGE has busybox
# as /bin/sh, httpd, wget, dd, awk, tail and sleep. Two of the projects fall back to sleeping where others misbehave, so
# that trouble is as rare as in life: three containers are restarted again and again, one runs out of memory now and then.
set -eu
image=$1
projects="home media shop monitoring git mail wiki ci iot backup"

start() { # project service index image-name command [option...]
    project=$1 service=$2 index=$3 name=$4 command=$5
    shift 5
    docker tag "$image" "$name"
    docker run --detach --network stack --ip "10.78.$index" --name "$project-$service-1" \
        --label "com.docker.compose.project=$project" --label "com.docker.compose.service=$service" \
        --label "com.docker.compose.container-number=1" --label "com.docker.compose.oneoff=False" \
        "$@" "$name" /bin/sh -c "$command" > /dev/null
}

idle='trap exit TERM; while :; do sleep 86400 & wait; done'
number=0
for project in $projects; do
    number=$((number + 1))
    # A database: some memory held, a write that is forced to the disk every few seconds.
    start "$project" db "$number.10" "postgres:16.$number" \
        'held=$(dd if=/dev/zero bs=256k count='"$number"' 2>/dev/null | tr "\0" a); n=0; while :; do n=$((n + 1));
         dd if=/dev/zero of=/data/wal bs=8k count=$((RANDOM % 16 + 1)) seek=$((n % 64 * 16)) conv=notrunc,fsync 2>/dev/null;
         [ $((n % 7)) -ne 0 ] || dd if=/data/wal of=/dev/null bs=64k iflag=direct 2>/dev/null; sleep $((RANDOM % 6 + 2)); done' \
        --memory 96m
    start "$project" cache "$number.11" redis:7.4.1 'while :; do sleep 5; true; done' --memory 64m
    # A web server with a healthcheck, and who asks it.
    start "$project" web "$number.12" nginx:1.27.3 \
        'dd if=/dev/urandom of=/data/index.html bs=1k count='"$((number * 3))"' 2>/dev/null; exec httpd -f -p 80 -h /data' \
        --health-cmd 'wget -q -O /dev/null http://127.0.0.1/' --health-interval 15s
    start "$project" worker "$number.13" "registry.example.net/$project/worker:2.$number.0" \
        'while :; do for i in $(seq $((RANDOM % 5))); do wget -q -O /dev/null http://10.78.'"$number"'.12/; done; sleep $((RANDOM % 8 + 1)); done'
    # A log that grows and is rotated.
    start "$project" logger "$number.14" fluent/fluent-bit:3.2.2 \
        'while :; do for i in $(seq $((RANDOM % 40))); do echo "line $i of something that happened"; done >> /data/log;
         [ $(wc -c < /data/log) -lt 200000 ] || mv /data/log /data/log.1; sleep $((RANDOM % 4 + 1)); done'
    start "$project" cron "$number.15" alpine/cron:3.21 'while :; do sleep 60; awk "BEGIN { for (i = 0; i < 300000; i++) x += i }"; done'
    start "$project" proxy "$number.16" traefik:v3.2 "$idle"
    start "$project" metrics "$number.17" prom/node-exporter:v1.8.2 'while :; do sleep 15; cat /proc/stat /proc/meminfo > /dev/null; done'
    start "$project" sidecar "$number.18" "registry.example.net/$project/sidecar:latest" "$idle"
    last="$number.19"
    case $project in
        home | iot) start "$project" agent "$last" flaky/agent:0.1 'sleep $((RANDOM % 20 + 25)); exit 1' --restart always ;;
        ci) start "$project" runner "$last" ci/runner:17 'sleep $((RANDOM % 60 + 40)); awk "BEGIN { for (i = 0; i < 400000; i++) x += i }"' --restart always ;;
        media) start "$project" transcoder "$last" media/transcoder:4.4 'sleep $((RANDOM % 60 + 50)); dd if=/dev/zero bs=64M count=1 | tail' --memory 8m --restart always ;;
        shop | mail) start "$project" search "$last" search/engine:8.16 'while :; do awk "BEGIN { for (i = 0; i < 200000; i++) x += i }"; sleep $((RANDOM % 2)); done' --cpus 0.04 ;;
        git | backup) start "$project" indexer "$last" "$project/indexer:1" 'while :; do i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; sleep $((RANDOM % 5)); done' --cpus 0.03 ;;
        *) start "$project" spare "$last" spare/spare:1 "$idle" ;;
    esac
done
