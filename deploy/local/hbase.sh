#!/usr/bin/env bash
# HBase in one JVM (master, region server, ZooKeeper) and its Thrift 2 server, on loopback:
# hbase.sh up|down. The write-ahead log is synced to disk at every put.
# hbase.sh thrift PORT: one more Thrift server on what `up` started, in the foreground.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
BASE=${CLUSTER_HBASE_PORT:-26000}
THRIFT=$((BASE + 92))
HOME_DIR=$STATE/hbase
JARS=$HOME_DIR/jars
CONF=$HOME_DIR/conf
DATA=$HOME_DIR/data
POM=$ROOT/deploy/local/hbase/pom.xml
HASHES=$ROOT/deploy/local/hbase/jars.sha256

# What Hadoop and HBase reach into, which Java 17 keeps closed.
OPENED=()
for package in lang lang.reflect io nio util util.concurrent net; do
	OPENED+=(--add-opens "java.base/java.$package=ALL-UNNAMED")
done
OPENED+=(
	--add-opens java.base/sun.nio.ch=ALL-UNNAMED
	--add-exports java.base/jdk.internal.misc=ALL-UNNAMED
	--add-exports java.security.jgss/sun.security.krb5=ALL-UNNAMED
	-Dorg.apache.hbase.thirdparty.io.netty.tryReflectionSetAccessible=true
	-Djava.net.preferIPv4Stack=true
)

fetch_jars() {
	local stamp
	stamp=$JARS/.of-$(cat "$POM" "$HASHES" | sha256sum | cut -c1-16)
	[ -f "$stamp" ] && return
	rm -rf "$JARS"
	mkdir -p "$JARS"
	mvn -B -q -f "$POM" dependency:copy-dependencies -DoutputDirectory="$JARS" \
		-DincludeScope=runtime >"$LOG/hbase.maven.log" 2>&1 ||
		die "the jars of HBase could not be fetched: $LOG/hbase.maven.log"
	(cd "$JARS" && LC_ALL=C && sha256sum *.jar) >"$LOG/hbase.jars.log"
	diff "$HASHES" "$LOG/hbase.jars.log" >"$LOG/hbase.differences.log" ||
		die "the jars of HBase are not those that were tried: $LOG/hbase.differences.log"
	touch "$stamp"
}

property() {
	printf '  <property><name>%s</name><value>%s</value></property>\n' "$1" "$2"
}

configure() {
	mkdir -p "$CONF" "$DATA"
	{
		echo '<configuration>'
		property hbase.rootdir "file://$DATA/hbase"
		property hbase.tmp.dir "$DATA/tmp"
		property hbase.zookeeper.property.dataDir "$DATA/zookeeper"
		property hbase.zookeeper.property.clientPort $((BASE + 2))
		property hbase.zookeeper.property.clientPortAddress 127.0.0.1
		property hbase.zookeeper.quorum 127.0.0.1
		property hbase.cluster.distributed false
		for server in master regionserver; do
			property hbase.$server.ipc.address 127.0.0.1
			property hbase.$server.hostname localhost
			property hbase.$server.info.port -1
		done
		property hbase.master.port "$BASE"
		property hbase.regionserver.port $((BASE + 1))
		property hbase.unsafe.regionserver.hostname localhost
		property hbase.master.wait.on.regionservers.mintostart 1
		property hbase.master.wait.on.regionservers.maxtostart 1
		# Hadoop's own local file system buffers what it should sync; the raw one does sync.
		property fs.file.impl org.apache.hadoop.fs.RawLocalFileSystem
		property hbase.unsafe.stream.capability.enforce true
		property hbase.wal.provider filesystem
		property hbase.wal.hsync true
		# A table's description could name code that the server then runs.
		property hbase.coprocessor.enabled false
		property hbase.coprocessor.user.enabled false
		property hbase.thrift.minWorkerThreads 8
		property hbase.thrift.maxWorkerThreads 200
		echo '</configuration>'
	} >"$CONF/hbase-site.xml"
	cat >"$CONF/log4j.properties" <<-'L'
		log4j.rootLogger=INFO,out
		log4j.appender.out=org.apache.log4j.ConsoleAppender
		log4j.appender.out.target=System.err
		log4j.appender.out.layout=org.apache.log4j.PatternLayout
		log4j.appender.out.layout.ConversionPattern=%d{ISO8601} %-5p [%t] %c{2}: %m%n
	L
}

JAVA=(java "${OPENED[@]}" -XX:+UseSerialGC -cp "$CONF:$JARS/*")
# Unframed: the framed server corrupts the split keys of a new table.
THRIFT_SERVER=(-Xmx384m org.apache.hadoop.hbase.thrift2.ThriftServer -b 127.0.0.1 --infoport -1)

up() {
	alive hbase && alive thrift && return
	need java openjdk-17-jre-headless
	need mvn maven
	mkdir -p "$HOME_DIR"
	fetch_jars
	configure
	own "$HOME_DIR"
	if ! alive hbase; then
		launch hbase "${JAVA[@]}" -Xmx1g org.apache.hadoop.hbase.master.HMaster start
	fi
	wait_until hbase 90 listens $((BASE + 2))
	if ! alive thrift; then
		launch thrift "${JAVA[@]}" "${THRIFT_SERVER[@]}" -p "$THRIFT" start
	fi
	wait_until hbase 120 grep -q "Master has completed initialization" "$LOG/hbase.log"
	wait_until thrift 60 listens "$THRIFT"
}

case ${1:-} in
up) up ;;
down)
	end thrift 5
	end hbase 40
	;;
thrift)
	alive hbase || die "HBase is not up: hbase.sh up"
	exec "${AS[@]}" "${JAVA[@]}" "${THRIFT_SERVER[@]}" -p "$2" start
	;;
*) die "hbase.sh up|down|thrift PORT" ;;
esac
