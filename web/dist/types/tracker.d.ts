export interface UptakeEvent {
    kind: "impression" | "play";
    request_id: string;
    video_id: string;
    timestamp: number;
    /** Milliseconds since the row arrived, by a clock that nobody sets. */
    since_row_ms: number;
    member_id?: string;
    row?: string;
    position?: number;
    dimensions?: Record<string, string>;
}
export interface Uptake {
    /** Watches the videos below a node, also those that are added later. */
    observe(root: ParentNode): void;
    /** A video of a row was played by other means than a click on it. */
    play(video: Element): void;
    /** Grants or withdraws consent; withdrawn, everything that waits is deleted. */
    consent(granted: boolean): void;
    /** Sends what waits now. */
    flush(): Promise<void>;
}
declare global {
    interface Window {
        uptake?: Uptake;
    }
}
export declare function start(): Uptake;
