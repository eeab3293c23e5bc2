// What stands around the Flink job of docs/moving.md: its input, its two functions and its sink. Reads
// lines of kind, request, video and time, and prints kind, video, half hour and the number of requests.

import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentSkipListMap;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.connector.sink2.Sink;
import org.apache.flink.api.connector.sink2.SinkWriter;
import org.apache.flink.api.connector.sink2.WriterInitContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.util.Collector;

public class Flink {
    static final long HORIZON = Duration.ofMinutes(90).toMillis();

    public static class Event {
        public String kind, requestId, video;
        public long time;

        String asText() {
            return video + " " + time;
        }
    }

    public static class Pair {
        public String kind, video, requestId;
        public long halfHour;
    }

    public static class Tally {
        public String key;
        public int requests;
    }

    /** Keeps both sides of a request, and lets go of them 90 minutes of event time after the last. */
    public static class JoinByRequest extends KeyedCoProcessFunction<String, Event, Event, Pair> {
        private transient MapState<String, Event> shown, played;
        private transient MapState<Integer, Long> until;

        @Override
        public void open(OpenContext context) {
            var event = Types.POJO(Event.class);
            shown = getRuntimeContext().getMapState(new MapStateDescriptor<>("shown", Types.STRING, event));
            played = getRuntimeContext().getMapState(new MapStateDescriptor<>("played", Types.STRING, event));
            until = getRuntimeContext().getMapState(new MapStateDescriptor<>("until", Types.INT, Types.LONG));
        }

        @Override
        public void processElement1(Event event, Context context, Collector<Pair> out) throws Exception {
            take(event, shown, played, context, out);
        }

        @Override
        public void processElement2(Event event, Context context, Collector<Pair> out) throws Exception {
            take(event, played, shown, context, out);
        }

        private void take(
                Event event, MapState<String, Event> own, MapState<String, Event> others, Context context, Collector<Pair> out)
                throws Exception {
            own.put(event.asText(), event);
            boolean counts = false;
            for (Event other : others.values()) {
                if (Math.abs(other.time - event.time) <= HORIZON) {
                    out.collect(pair(other));
                    counts = true;
                }
            }
            if (counts) {
                out.collect(pair(event));
            }
            long end = event.time + HORIZON;
            if (!until.contains(0) || until.get(0) < end) {
                until.put(0, end);
                context.timerService().registerEventTimeTimer(end);
            }
        }

        private static Pair pair(Event event) {
            Pair pair = new Pair();
            pair.kind = event.kind;
            pair.video = event.video;
            pair.requestId = event.requestId;
            pair.halfHour = event.time / 1_800_000;
            return pair;
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Pair> out) throws Exception {
            if (until.get(0) == time) {
                shown.clear();
                played.clear();
                until.clear();
            }
        }
    }

    public static class UniteSets extends KeyedProcessFunction<String, Pair, Tally> {
        private transient MapState<String, Boolean> requests;

        @Override
        public void open(OpenContext context) {
            requests = getRuntimeContext()
                    .getMapState(new MapStateDescriptor<>("requests", Types.STRING, Types.BOOLEAN));
        }

        @Override
        public void processElement(Pair pair, Context context, Collector<Tally> out) throws Exception {
            requests.put(pair.requestId, true);
            Tally tally = new Tally();
            tally.key = context.getCurrentKey();
            for (String ignored : requests.keys()) {
                tally.requests++;
            }
            out.collect(tally);
        }
    }

    static final Map<String, Integer> TABLE = new ConcurrentSkipListMap<>();

    /** The larger row wins. */
    public static class Table implements Sink<Tally> {
        @Override
        public SinkWriter<Tally> createWriter(WriterInitContext context) {
            return new SinkWriter<>() {
                @Override
                public void write(Tally tally, Context context) {
                    TABLE.merge(tally.key, tally.requests, Math::max);
                }

                @Override
                public void flush(boolean end) {}

                @Override
                public void close() {}
            };
        }
    }

    public static void main(String[] arguments) throws Exception {
        List<Event> all = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] fields = line.split("\t");
            Event event = new Event();
            event.kind = fields[0];
            event.requestId = fields[1];
            event.video = fields[2];
            event.time = Long.parseLong(fields[3]);
            all.add(event);
        }
        var environment = StreamExecutionEnvironment.getExecutionEnvironment();
        environment.setParallelism(2);
        var watermarks = WatermarkStrategy.<Event>forBoundedOutOfOrderness(Duration.ofMinutes(30))
                .withTimestampAssigner((event, before) -> event.time);
        DataStream<Event> events = environment.fromData(all).assignTimestampsAndWatermarks(watermarks);
        DataStream<Event> impressions = events.filter(event -> event.kind.equals("impression"));
        DataStream<Event> plays = events.filter(event -> event.kind.equals("play"));
        Sink<Tally> cassandra = new Table();
        // <page>
        environment.execute();
        TABLE.forEach((key, requests) -> System.out.println("tally " + key + " " + requests));
    }
}
