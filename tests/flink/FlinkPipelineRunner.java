package org.apache.beam.runners.flink;

import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink;

/**
 * Stands for Beam's class of this name, which Beam has Flink start from the jar that it uploads. It
 * reads the options that Beam put into that jar, and runs a job that does what the job's name says:
 * end, fail, or go on for ten minutes.
 */
public final class FlinkPipelineRunner {
  private static final String OPTIONS = "BEAM-PIPELINE/pipeline/pipeline-options.json";

  public static void main(String[] args) throws Exception {
    String options;
    try (InputStream file =
        Thread.currentThread().getContextClassLoader().getResourceAsStream(OPTIONS)) {
      options = new String(file.readAllBytes(), StandardCharsets.UTF_8);
    }
    StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment();
    flink
        .fromSequence(1, 2)
        .map(new Act(options.contains("to-fail"), options.contains("to-go-on")))
        .sinkTo(new DiscardingSink<>());
    flink.execute("stand-in");
  }

  private static final class Act implements MapFunction<Long, Long> {
    private final boolean fails;
    private final boolean goesOn;

    Act(boolean fails, boolean goesOn) {
      this.fails = fails;
      this.goesOn = goesOn;
    }

    @Override
    public Long map(Long number) throws InterruptedException {
      if (fails) {
        throw new IllegalStateException("failed as asked");
      }
      if (goesOn) {
        Thread.sleep(600_000);
      }
      return number;
    }
  }
}
