// What stands around the Spark Streaming job of docs/moving.md: its input, its state and where its sets go.
// Reads lines of kind, request, video and time, and prints kind, video, half hour and the number of requests.

import java.nio.file.{Files, Path}
import java.util.concurrent.ConcurrentHashMap
import org.apache.spark.SparkConf
import org.apache.spark.rdd.RDD
import org.apache.spark.streaming.{Minutes, Milliseconds, State, StateSpec, StreamingContext}
import scala.collection.mutable
import scala.jdk.CollectionConverters._

case class Event(kind: String, requestId: String, video: String, time: Long) {
  def halfHour: Long = time / 1800000
}

/** What was seen of a request, and what an event of it completes. */
case class Seen(all: Set[Event], pairs: Set[Event]) {
  private def isPair(a: Event, b: Event) = a.kind != b.kind && math.abs(a.time - b.time) <= 90 * 60000

  def add(event: Event): Seen = {
    val others = all.filter(isPair(_, event))
    Seen(all + event, if (others.isEmpty) Set.empty else others + event)
  }
}

object Seen {
  val empty: Seen = Seen(Set.empty, Set.empty)
}

object Spark {
  type Key = (String, String, Long)
  val table = new ConcurrentHashMap[Key, Set[String]]
  val count = 6
  /** Two more than are filled: a micro-batch's job follows those of the batches before. */
  val done = new java.util.concurrent.CountDownLatch(count + 2)

  val upsertSets: Iterator[(Key, Set[String])] => Unit =
    _.foreach { case (key, requests) => table.merge(key, requests, (a, b) => a union b) }

  def main(arguments: Array[String]): Unit = {
    val all = Files.readAllLines(Path.of(arguments(0))).asScala.map { line =>
      val fields = line.split('\t')
      Event(fields(0), fields(1), fields(2), fields(3).toLong)
    }
    val conf = new SparkConf().setMaster("local[2]").setAppName("moving")
    conf.set("spark.ui.enabled", "false").set("spark.driver.host", "127.0.0.1").set("spark.driver.bindAddress", "127.0.0.1")
    val context = new StreamingContext(conf, Milliseconds(500))
    context.checkpoint(Files.createTempDirectory("moving").toString)
    val batches = mutable.Queue.empty[RDD[Event]]
    all.grouped((all.size + count - 1) / count).foreach(batch => batches += context.sparkContext.parallelize(batch.toSeq, 2))
    val events = context.queueStream(batches)
    // <page>
    events.foreachRDD((_: RDD[Event]) => done.countDown())
    context.start()
    done.await()
    context.stop(stopSparkContext = true, stopGracefully = true)
    table.asScala.foreach { case ((kind, video, halfHour), requests) =>
      println(s"tally $kind $video $halfHour ${requests.size}")
    }
  }
}
